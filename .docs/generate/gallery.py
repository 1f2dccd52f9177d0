def figures():
    return ""


def studies():
    return ""


def thumbnails():
    return ""
