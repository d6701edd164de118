"""What reaches standard output: the result, whatever else prints, from whatever thread."""

import sys
import threading

import pytest

from segjobs.stdout import kept_for_the_result


def test_what_is_printed_beside_the_result_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with kept_for_the_result():
        printer = threading.Thread(target=print, args=("a warning of Ray's",))
        printer.start()
        printer.join()
        sys.stdout.write("of a library\n")
    sys.stdout.write('{"images": 1}\n')
    out, err = capsys.readouterr()
    assert out == '{"images": 1}\n'
    assert err == "a warning of Ray's\nof a library\n"
