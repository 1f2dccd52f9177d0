"""The browser that other tests look through sees narrow windows, errors and requests."""

import browser
import pytest


@pytest.fixture(scope="module")
def chromium():
    with browser.opened() as one:
        yield one


@pytest.fixture
def write(tmp_path):
    def written(body):
        (tmp_path / "page.html").write_text(
            f'<!doctype html><html><head><meta name="viewport" content="width=device-width"></head>{body}</html>'
        )
        return (tmp_path / "page.html").as_uri()

    return written


def test_a_window_is_as_narrow_as_asked_and_says_what_sticks_out(chromium, write):
    page = chromium.visit(write("<body style='margin:0'><div style='width:500px'>wide</div></body>"), width=390)
    assert page.run("document.documentElement.clientWidth") == 390
    assert page.overflow() in (110, 111)  # a phone shrinks what sticks out, to whole pixels
    page.resize(1366)
    assert page.run("document.documentElement.clientWidth") == 1366
    assert page.overflow() == 0
    assert not page.problems


def test_errors_exceptions_and_requests_are_problems(chromium, write):
    page = chromium.visit(
        write(
            "<body><script>console.error('said so')</script><script>undefined.x</script><img src='missing.png'>"
            "<img src='http://localhost:9/a.png'></body>"
        )
    )
    for word in ("said so", "TypeError", "missing.png", "asks for http://localhost:9/a.png"):
        assert any(word in problem for problem in page.problems), (word, page.problems)
    with pytest.raises(RuntimeError, match="ReferenceError"):
        page.run("nothing")
