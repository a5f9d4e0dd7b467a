"""Random manifests and requests from small pools, so that they meet: hostnames that overlap, paths that nest."""

import random

SERVICES = 8
HOSTNAMES = ["a.test", "b.test", "x.a.test", "y.x.a.test", "*.a.test", "*.x.a.test", "*.test", "A.TEST"]
HOSTS = ["a.test", "b.test", "x.a.test", "y.x.a.test", "z.y.x.a.test", "q.a.test", "c.test", "other.org", "test"]
PATHS = ["/", "/a", "/a/", "/a/b", "/ab", "/A", "/a/b/c", "/x.y", "/a%2Fb", "/c/"]
EXPRESSIONS = ["/a.*", "/[ab]+", "/a/(b|c)", "/.*/b", "/a", "/("]
TARGETS = [
    *PATHS,
    "/a/b/",
    "/a/c",
    "/abc",
    "//a",
    "/a//b",
    "/b/../a",
    "/a/./b",
    "/%61/b",
    "/xzy",
    "/a/x/b",
    "/a?q=1",
    "/a/b?q=&r=2",
    "/?q=v%20w&q=1",
    "/a?r=1&q=12",
    "/c",
    "/a/%2e%2e/c",
]
METHODS = ["GET", "GET", "GET", "POST", "HEAD", "PUT", "OPTIONS", "DELETE"]
VALUES = ["1", "2", "one", "One"]
SESSIONS = [
    {"type": "Cookie", "cookie": {"name": "session"}},
    {"type": "Header", "header": {"name": "X-Session"}},
]
HEADERS = ["x-t-one", "X-T-Two", "Host", "X-Forwarded-Proto"]
UDP = 4
"""Which of the ports is for datagrams."""
CHAOS = 0.12
"""The share of pieces that are wrong on purpose."""


class Generator:
    """Everything follows from the seed."""

    def __init__(self, seed, ports, wide=False):
        """`wide`: with datagrams, TLS passed through, sessions, authorization and trusted hops too."""
        self.random = random.Random(seed)
        self.ports = ports
        self.wide = wide
        self.trusted_hops = 1 if wide and self.chance(0.3) else 0
        self.places = []
        """(scheme, port, hostname) of the listeners, so that most requests find one."""

    def chance(self, share):
        return self.random.random() < share

    def some(self, pool, most, least=0):
        return self.random.sample(pool, min(len(pool), self.random.randint(least, most)))

    # -- manifests -----------------------------------------------------------------------------------------------------

    def manifests(self, certificate):
        """Documents of one world. `certificate` is (chain, key), PEM in base64."""
        out = [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other", "labels": {"team": "o"}}},
            _object("gateway.networking.k8s.io/v1", "GatewayClass", "", "c", {"controllerName": "example.com/c"}),
        ]
        tls = _object("v1", "Secret", "default", "cert", None)
        tls.update(type="kubernetes.io/tls", data={"tls.crt": certificate[0], "tls.key": certificate[1]})
        out.append(tls)
        for namespace in ("default", "other"):
            out += [_service(namespace, name) for name in (*(f"s{n}" for n in range(SERVICES)), "empty")]
        listeners = self.listeners("l", 5)
        gateway = {"gatewayClassName": "c", "listeners": listeners, "addresses": [_address("127.0.0.1")]}
        if self.chance(0.5):
            gateway["allowedListeners"] = {"namespaces": {"from": self.random.choice(["All", "Same", "None"])}}
        out.append(_object("gateway.networking.k8s.io/v1", "Gateway", "default", "gw", gateway))
        if self.chance(0.4):
            spec = {"parentRef": {"name": "gw", "namespace": "default"}, "listeners": self.listeners("s", 2)}
            namespace = self.random.choice(["default", "other"])
            out.append(_object("gateway.networking.k8s.io/v1", "ListenerSet", namespace, "set", spec))
        names = [listener["name"] for listener in listeners]
        out += [self.route("HTTPRoute", f"r{n}", names) for n in range(self.random.randint(2, 8))]
        out += [
            self.l4_route(kind, f"l{n}", names) for n, kind in enumerate(("TLSRoute", "TCPRoute")) if self.chance(0.4)
        ]
        if self.wide and self.chance(0.5):
            listeners.append({"name": "datagrams", "protocol": "UDP", "port": self.ports[UDP]})
            self.places.append(("udp", self.ports[UDP], ""))
            if self.chance(0.8):
                out.append(self.l4_route("UDPRoute", "l2", ["datagrams"]))
        out += [self.route("GRPCRoute", f"g{n}", names) for n in range(self.random.randint(0, 2))]
        if self.chance(0.4):
            froms = [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "default"}]
            spec = {"from": froms, "to": [{"group": "", "kind": "Service"}]}
            out.append(_object("gateway.networking.k8s.io/v1", "ReferenceGrant", "other", "grant", spec))
        return out

    def listeners(self, prefix, most):
        out = []
        for number in range(self.random.randint(1, most)):
            protocols = [("HTTP", 0), ("HTTP", 1), ("HTTPS", 2), ("HTTPS", 2), ("TLS", 2), ("TCP", 3)]
            protocol, index = self.random.choice(protocols)
            port = self.ports[index]
            listener = {"name": f"{prefix}{number}", "protocol": protocol, "port": port}
            if protocol != "TCP" and self.chance(0.75):
                listener["hostname"] = self.random.choice(HOSTNAMES).lower()
            if protocol in {"HTTPS", "TLS"}:
                name = "missing" if self.chance(CHAOS) else "cert"
                listener["tls"] = {"certificateRefs": [{"name": name, "namespace": "default"}]}
                if self.wide and protocol == "TLS" and self.chance(0.5):
                    listener["tls"] = {"mode": "Passthrough"}
                elif prefix == "l":
                    del listener["tls"]["certificateRefs"][0]["namespace"]
            choice = self.random.random()
            if choice < 0.8:
                listener["allowedRoutes"] = {"namespaces": {"from": "All"}}
            elif choice < 0.9:
                selector = {"matchLabels": {"team": "o"}}
                listener["allowedRoutes"] = {"namespaces": {"from": "Selector", "selector": selector}}
            elif choice < 0.95:
                listener["allowedRoutes"] = {"kinds": [{"kind": "HTTPRoute"}]}
            distinct = {(each["port"], each.get("hostname")) for each in out}
            if (port, listener.get("hostname")) not in distinct:  # validation demands it
                out.append(listener)
                scheme = {"HTTP": "http", "TCP": "tcp"}.get(protocol, "https")
                self.places.append((scheme, port, listener.get("hostname", "")))
        return out

    def route(self, kind, name, listeners):
        spec = {"parentRefs": [self.parent(listeners) for _ in range(self.random.randint(1, 2))]}
        hostnames = [h.lower() for h in self.some(HOSTNAMES, 3)]
        if hostnames and self.chance(0.5):
            spec["hostnames"] = list(dict.fromkeys(hostnames))
        build = self.rule if kind == "HTTPRoute" else self.grpc_rule
        spec["rules"] = [build(f"{name}-{number}") for number in range(self.random.randint(1, 3))]
        namespace = self.random.choice(["default", "default", "other"])
        document = _object("gateway.networking.k8s.io/v1", kind, namespace, name, spec)
        document["metadata"]["creationTimestamp"] = f"2026-01-0{self.random.randint(1, 3)}T00:00:00Z"
        return document

    def l4_route(self, kind, name, listeners):
        spec = {"parentRefs": [self.parent(listeners)], "rules": [{"backendRefs": self.backends(filters=False)}]}
        if not spec["rules"][0]["backendRefs"]:
            spec["rules"][0]["backendRefs"] = [{"name": "s1", "port": 80}]
        if kind == "TLSRoute":
            hostnames = [h.lower() for h in self.some(HOSTNAMES, 3, 1)]
            spec["hostnames"] = list(dict.fromkeys(hostnames))
        return _object("gateway.networking.k8s.io/v1", kind, "default", name, spec)

    def parent(self, listeners):
        ref = {"name": "gw", "namespace": "default"}
        if self.chance(0.2):
            ref["sectionName"] = self.random.choice([*listeners, "nosuch"] if self.chance(CHAOS) else listeners)
        elif self.chance(0.2):
            ref["port"] = self.random.choice(self.ports)
        elif self.chance(0.1):
            ref = {"kind": "ListenerSet", "name": "set"}
        return ref

    def rule(self, name):
        rule = {"backendRefs": self.backends(), "filters": self.filters(name)}
        if self.chance(0.6):
            rule["matches"] = [self.match() for _ in range(self.random.randint(1, 3))]
        if any(f["type"] == "RequestRedirect" for f in rule["filters"]):
            del rule["backendRefs"]
        elif self.wide and self.chance(0.1):
            rule["sessionPersistence"] = self.random.choice(SESSIONS)
        return rule

    def match(self):
        match = {}
        if self.chance(0.85):
            kind = self.random.choice(["PathPrefix", "PathPrefix", "Exact", "RegularExpression"])
            pool = EXPRESSIONS if kind == "RegularExpression" else PATHS
            if kind == "RegularExpression" and not self.chance(CHAOS):
                pool = EXPRESSIONS[:-1]
            value = "/" if kind == "PathPrefix" and self.chance(0.3) else self.random.choice(pool)
            match["path"] = {"type": kind, "value": value}
        if self.chance(0.3):
            match["method"] = self.random.choice(METHODS)
        if self.chance(0.25):
            match["headers"] = [self.value(n) for n in self.some(HEADERS if self.wide else HEADERS[:-1], 2, 1)]
        if self.chance(0.25):
            match["queryParams"] = [self.value(n) for n in self.some(["q", "r"], 2, 1)]
        return match

    def value(self, name):
        if name == "X-Forwarded-Proto":
            return {"name": name, "value": self.random.choice(["http", "https"])}
        if name == "Host":
            return {"name": name, "type": "RegularExpression", "value": ".*test.*"}
        if self.chance(0.35):
            return {"name": name, "type": "RegularExpression", "value": self.random.choice(["[0-9]+", "o.*", "1|2"])}
        return {"name": name, "value": self.random.choice([*VALUES, "v%20w"])}

    def backends(self, filters=True):
        out = []
        for _ in range(self.random.choice([1, 1, 1, 2, 2, 3, 0])):
            ref = {"name": f"s{self.random.randrange(SERVICES)}", "port": 80}
            if self.chance(CHAOS):
                ref["name"] = self.random.choice(["empty", "missing"])
            if self.chance(0.15):
                ref["namespace"] = "other"
            if self.chance(0.5):
                ref["weight"] = self.random.randint(0, 3)
            if filters and self.chance(0.2):
                ref["filters"] = [self.random.choice([self.request_headers("b"), self.rewrite()])]
            out.append(ref)
        return out

    def filters(self, name):
        found = [self.request_headers(name)]
        if self.chance(0.15):
            found.append(self.redirect())
        elif self.chance(0.25):
            found.append(self.rewrite())
        if self.chance(0.15):
            origins = self.random.choice([["https://o.test"], ["*"], ["https://*.test"]])
            found.append({"type": "CORS", "cors": {"allowOrigins": origins, "allowMethods": ["GET", "PUT"]}})
        if self.chance(0.1):
            found.append({"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "s0", "port": 80}}})
        if self.chance(0.15):
            headers = {"add": [{"name": "x-response", "value": "yes"}]}
            found.append({"type": "ResponseHeaderModifier", "responseHeaderModifier": headers})
        if self.wide and self.chance(0.1):
            name = self.random.choice(["s0", "s1", "s2", "s3", "empty", "missing"])
            auth = {"protocol": "HTTP", "backendRef": {"name": name, "port": 80}, "http": {}}
            found.append({"type": "ExternalAuth", "externalAuth": auth})
        if self.chance(CHAOS / 3):
            ref = {"group": "example.com", "kind": "Nothing", "name": "n"}
            found.append({"type": "ExtensionRef", "extensionRef": ref})
        return found

    def request_headers(self, name):
        change = {"set": [{"name": f"X-T-Rule-{name[0]}", "value": name}]}
        if self.chance(0.3):
            change["add"] = [{"name": "x-t-one", "value": "added"}]
        if self.chance(0.2):
            change["remove"] = ["X-T-Two"]
        return {"type": "RequestHeaderModifier", "requestHeaderModifier": change}

    def path(self):
        if self.chance(0.5):
            return {"type": "ReplaceFullPath", "replaceFullPath": self.random.choice(["/full", "/"])}
        return {"type": "ReplacePrefixMatch", "replacePrefixMatch": self.random.choice(["/", "/new", "/new/", "/a"])}

    def rewrite(self):
        rewrite = {}
        if self.chance(0.7):
            rewrite["path"] = self.path()
        if self.chance(0.4) or not rewrite:
            rewrite["hostname"] = "rewritten.test"
        return {"type": "URLRewrite", "urlRewrite": rewrite}

    def redirect(self):
        redirect = {}
        if self.chance(0.5):
            redirect["scheme"] = self.random.choice(["http", "https"])
        if self.chance(0.4):
            redirect["hostname"] = "elsewhere.test"
        if self.chance(0.3):
            redirect["port"] = self.random.choice([80, 443, 8443])
        if self.chance(0.4):
            redirect["path"] = self.path()
        if self.chance(0.5):
            redirect["statusCode"] = self.random.choice([301, 302, 303, 307, 308])
        return {"type": "RequestRedirect", "requestRedirect": redirect}

    def grpc_rule(self, name):
        rule = {"backendRefs": self.backends(filters=False), "filters": [self.request_headers(name)]}
        if self.chance(0.85):
            matches = []
            for _ in range(self.random.randint(1, 2)):
                match = {}
                if self.chance(0.8):
                    method = {"type": self.random.choice(["Exact", "Exact", "RegularExpression"])}
                    method.update(
                        self.random.choice([{"service": "a"}, {"method": "b"}, {"service": "a", "method": "b"}])
                    )
                    match["method"] = method
                if self.chance(0.3):
                    match["headers"] = [self.value("x-t-one")]
                matches.append(match)
            rule["matches"] = matches
        return rule

    # -- requests ------------------------------------------------------------------------------------------------------

    def request(self):
        """(scheme, port, sni, host header, method, target, headers)."""
        scheme, index = self.random.choice([("http", 0), ("http", 1), ("tcp", 3), *[("https", 2)] * 3])
        port = self.ports[index]
        host = self.random.choice(HOSTS)
        if self.chance(0.9):
            scheme, port, hostname = self.random.choice(self.places)
            if hostname:
                host = hostname.replace("*", self.random.choice(["q", "x", "y.x", "a"]))
        sni = host if self.chance(0.85) else self.random.choice(HOSTS)
        authority = host
        if self.chance(0.3):
            authority = self.random.choice([f"{host}:{port}", f"{host}:80", host.upper(), f"{host}.", f"{host}.:81"])
        method = self.random.choice(METHODS)
        headers = []
        for name in ("X-T-One", "x-t-two"):
            count = self.random.choice([0, 0, 1, 1, 2])
            headers += [(name, self.random.choice([*VALUES, "1,2", ""])) for _ in range(count)]
        if method == "OPTIONS" and self.chance(0.6):
            headers.append(("Origin", self.random.choice(["https://o.test", "https://evil.org"])))
            headers.append(("Access-Control-Request-Method", self.random.choice(["GET", "PUT"])))
        if self.wide and self.chance(0.15):
            headers.append(("X-Forwarded-Proto", self.random.choice(["http", "https", "HTTPS", "ws", ""])))
        if self.wide and self.chance(0.1):
            headers.append(self.random.choice([("Cookie", "session=spoilt"), ("X-Session", "spoilt")]))
        if self.chance(0.12):
            method = "POST"
            headers.append(("Content-Type", "application/grpc"))
        return scheme, port, sni, authority, method, self.random.choice(TARGETS), tuple(headers)


def _object(version, kind, namespace, name, spec):
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **({"spec": spec} if spec is not None else {})}


def _service(namespace, name):
    return _object("v1", "Service", namespace, name, {"ports": [{"port": 80}]})


def _address(value):
    return {"type": "IPAddress", "value": value}
