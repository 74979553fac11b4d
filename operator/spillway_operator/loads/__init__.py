"""What proxies report, kept as windows: reports in, figures with an age out.

`store.LoadStore` takes reports and answers questions; `windows` holds sliding counters; `figures` the values handed out.
"""
