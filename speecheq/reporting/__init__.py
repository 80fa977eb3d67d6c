"""Tables, figures, report pages, comparison with published results (section 3.3)."""
