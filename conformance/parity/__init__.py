"""The same kubectl invocations to the embedded API and to a real kube-apiserver, and what differs."""
