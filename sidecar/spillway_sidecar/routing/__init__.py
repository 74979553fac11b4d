"""Pure: a request's facts and a compiled snapshot lead to a rule and its backends.

`classify` reads from a body only what routing needs, `keys` what ties a request to others where a profile goes by that, `table` compiles
snapshot resources once per swap, `rewrite` changes the model's name in a body.
"""
