"""What is thrown at the data path beside its tests: coverage-guided inputs (`targets`), and other parsers' verdicts (`differential`)."""
