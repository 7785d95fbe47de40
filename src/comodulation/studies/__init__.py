"""The paper's experiments as data plus a few lines: what is run, how it is searched, compared, judged and reported."""
