"""Tests of routing: what is asked, what is expected, and whether the Graph and a real Envoy both say so.

Contract: `parsing` reads RouteTests, `graph_engine` and `envoy_engine` answer requests in one shape (`model.Answer`),
`expectations` compares an answer with what is wanted, `agreement` one engine with the other, `coverage` counts the
matches that were reached. These are pure save `envoy_engine` and what it runs (`proxy`, `backends`, `client`), and
`run`, which reads files. What a request does is decided by `explain` alone; nothing of it is decided again here.
"""
