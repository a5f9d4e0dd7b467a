"""A Kubernetes-compatible HTTP API over a local store: what kubectl, its friends and client libraries speak.

Requests come in over TLS (`http`), are told apart (`paths`), authenticated (`identity`) and authorized (`access`), and
end as reads, writes and watches of the store (`objects`, `lists`, `watches`). What a resource is stands in one registry
(`resources`), which CustomResourceDefinitions extend. Nothing is imported here: starting a process costs nothing until
the server is asked for.
"""
