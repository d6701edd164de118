"""What reaches standard output: the result, whatever else prints, from whatever thread."""

import sys
import threading

import pytest

from segjobs.stdout import only_results, write_result


def test_only_results_reach_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    with only_results():
        printer = threading.Thread(target=print, args=("a warning of Ray's",))
        printer.start()
        printer.join()
        write_result('{"images": 1}\n')
        sys.stdout.write("of a library\n")
    write_result("outside\n")
    print("printed")
    out, err = capsys.readouterr()
    assert out == '{"images": 1}\noutside\nprinted\n'
    assert err == "a warning of Ray's\nof a library\n"
