from wamlab.report.axes import between, figure


def test_a_figure_has_three_digits_and_a_rounding_error_none():
    assert figure(0.0312345) == "0.0312"
    assert figure(-12.345) == "−12.3"
    assert figure(1.1e-16) == figure(-1.1e-16) == "0"
    assert figure(9.26e-05) == "9.26e−05"
    assert figure(None) == "–"
    assert between((-1e-17, 0.5)) == "0 to 0.5"
    assert between(None) == ""
