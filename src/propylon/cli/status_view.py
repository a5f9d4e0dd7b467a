"""`propylon status` for people."""

from typing import Any

from propylon.cli.output import colour, truth, visible_table


def render_status(report: dict[str, Any]) -> str:
    """Gateways with their listeners, routes by parent, then what is wrong."""
    parts = [_gateways(report["gateways"]), _routes(report["routes"]), _problems(report["errors"])]
    parts.append("\n".join(report["notices"]))
    return "\n\n".join(p for p in parts if p) or "There is no Gateway of an adopted class, and no route."


def _gateways(gateways: list[dict[str, Any]]) -> str:
    rows = []
    for gateway in gateways:
        rows.append(
            (
                f"{gateway['namespace']}/{gateway['name']}",
                gateway["class"],
                ",".join(gateway["addresses"]),
                truth(gateway["accepted"]),
                truth(gateway["programmed"]),
                "",
                "",
            )
        )
        for listener in gateway["listeners"]:
            conditions = {c["type"]: c for c in listener["conditions"]}
            port = str(listener["port"])
            if listener["bound_port"] not in {None, listener["port"]}:
                port += f" on {listener['bound_port']}"
            rows.append(
                (
                    f"  {listener['name']}",
                    f"{listener['protocol']} {port}",
                    listener["hostname"] or "*",
                    truth(conditions.get("Accepted", {}).get("status")),
                    truth(conditions.get("Programmed", {}).get("status")),
                    str(listener["attached_routes"]),
                    _why(listener["conditions"]),
                )
            )
    headers = ("GATEWAY", "CLASS/PORT", "ADDRESS/HOST", "ACCEPTED", "PROGRAMMED", "ROUTES", "REASON")
    return visible_table(headers, rows) if rows else ""


def _why(conditions: list[dict[str, Any]]) -> str:
    wrong = [
        c for c in conditions if (c["status"] == "False") == (c["type"] not in {"Conflicted", "OverlappingTLSConfig"})
    ]
    return "; ".join(dict.fromkeys(c["reason"] for c in wrong))


def _routes(routes: list[dict[str, Any]]) -> str:
    rows = []
    for route in routes:
        for parent in route["parents"]:
            section = f"/{parent['section']}" if parent["section"] else ""
            rows.append(
                (
                    f"{route['kind']} {route['namespace']}/{route['name']}",
                    parent["gateway"] + section,
                    truth(parent["accepted"]),
                    truth(parent["resolved_refs"]),
                    "; ".join(reason.split(": ")[1] for reason in parent["reasons"]),
                )
            )
    return visible_table(("ROUTE", "PARENT", "ACCEPTED", "RESOLVED", "REASON"), rows) if rows else ""


def _problems(errors: list[dict[str, Any]]) -> str:
    lines = []
    for error in errors:
        place = f"{error['file']}:{error['line']}" if error["file"] and error["line"] else error["file"]
        head = ": ".join(p for p in (place, error["object"], error["field"]) if p)
        word = colour("error", "red") if error["severity"] == "error" else colour("warning", "yellow")
        lines.append(f"{word}: {head}: {error['message']}")
        if error.get("remedy"):
            lines.append(f"       {error['remedy']}")
    return "\n".join(lines)
