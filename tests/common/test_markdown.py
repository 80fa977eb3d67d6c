"""Tables in Markdown."""

from speecheq.common.markdown import markdown_table


def test_a_cell_stays_one_cell_on_one_line():
    table = markdown_table(("a", "b"), [("x|y", "1\n2"), ("", "3")])
    assert table == "| a | b |\n| --- | --- |\n| x\\|y | 1\\n2 |\n|  | 3 |\n"


def test_a_cell_holds_no_html():
    table = markdown_table(("p < 0.05", "<b>bold"), [("<script>a</script>", "\\<!-- x")])
    assert table == "| p < 0.05 | &lt;b>bold |\n| --- | --- |\n| &lt;script>a&lt;/script> | \\&lt;!-- x |\n"
