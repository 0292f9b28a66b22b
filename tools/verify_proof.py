#!/usr/bin/env python3
"""Checks a proof of a ledger line (`rumledger export proof LINE`) without rumledger.

    python3 tools/verify_proof.py proof.json [--operator-key HEX] [--lines-root HEX]

From the signed reports and the terms in the proof it computes quantity and amount anew, and compares
them with the line; then it follows the line to the root of its period. The keys of devices come from the
proof: compare those that matter to you with your own devices' (`show license` names trust codes).
A proof shows that all that was billed was reported and signed; that no report was left out, it cannot.

Needs Python 3.9 and the package `cryptography`. Exit status: 0 it holds, 1 it does not.
"""
import argparse, base64, hashlib, json, re, sys
from fractions import Fraction

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding


MANIFEST = {"period", "closed_at", "lines", "totals", "lines_root", "chain_head", "ledger_version", "journal_version", "book_version",
            "log_digests", "prices", "reports", "verified_share", "rumledger"}


class Refused(Exception):
    pass


def check(holds, why):
    if not holds:
        raise Refused(why)


def canonical(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def unhex(text):
    check(bytes.fromhex(text).hex() == text, "a number is not plain hexadecimal")
    return bytes.fromhex(text)


def unbase64(text):
    check(base64.b64encode(base64.b64decode(text)).decode() == text, "a text is not plain base64")
    return base64.b64decode(text)


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def leaf(text):
    return sha256(b"\0", text.encode())


def root(leaves):
    """RFC 6962, 2.1."""
    if len(leaves) < 2:
        return leaves[0] if leaves else sha256()
    k = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\1", root(leaves[:k]), root(leaves[k:]))


def root_by_path(node, index, size, path):
    """RFC 9162, 2.1.3.2."""
    last = size - 1
    check(0 <= index <= last, "the line's place is outside its period")
    for sibling in path:
        check(last > 0, "the path to the period's root is too long")
        if index % 2 or index == last:
            node = sha256(b"\1", sibling, node)
            while index % 2 == 0 and index:
                index, last = index >> 1, last >> 1
        else:
            node = sha256(b"\1", node, sibling)
        index, last = index >> 1, last >> 1
    check(last == 0, "the path to the period's root is too short")
    return node


def half_even(value, places):
    """Rounds a fraction; gives the text with all places."""
    scaled = round(value * 10 ** places)  # Fraction.__round__ rounds half to even
    text = str(abs(scaled)).rjust(places + 1, "0")
    sign = "-" if scaled < 0 else ""
    return sign + (text[:-places] + "." + text[-places:] if places else text)


def verify_signature(report):
    try:
        key = serialization.load_der_public_key(unbase64(report["public_key"]))
    except UnsupportedAlgorithm:
        raise Refused("a key is of no kind that signs reports")
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    check(spki == unbase64(report["public_key"]), "a key is not in its one form")
    signature, message = unbase64(report["signature"]), report["payload"].encode()
    try:
        if report["algorithm"] == "RS256":
            key.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
        elif report["algorithm"] == "ES256":
            check(isinstance(key.curve, ec.SECP256R1), "an ES256 key is not on P-256")
            key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        else:
            check(report["algorithm"] == "EdDSA" and isinstance(key, ed25519.Ed25519PublicKey), "an unknown algorithm")
            key.verify(signature, message)
    except InvalidSignature:
        raise Refused("a signature does not hold")


def check_report(report):
    """Checks one report; gives PI, stretches, and whether it is verified."""
    pid, serial, report_id, digest, tag, utility, status, stretches = json.loads(report["entry"])
    check(canonical(json.loads(report["entry"])) == report["entry"], "an entry is not canonical")
    if status != "verified":
        check(all(report[k] is None for k in ("payload", "signature", "signer", "algorithm", "public_key")), "an unverifiable report has a signature")
        return (pid, serial), stretches, False
    verify_signature(report)
    check(hashlib.sha256(report["payload"].encode()).hexdigest() == digest, "a payload is not the one in the evidence")
    payload = json.loads(report["payload"])
    about, meta = payload["asset_identification"], payload["meta"]
    sudi = about["instance"]["sudi"]
    check((sudi["udi_pid"], sudi["udi_serial_number"]) == (pid, serial), "a report is of another device")
    peers = [f"{m['sudi']['udi_pid']}:{m['sudi']['udi_serial_number']}" for m in meta.get("ha_udi") or []]
    check(report["signer"] in [f"{pid}:{serial}", *peers], "a report is signed by a stranger")
    is_second = str(payload.get("version", "")).startswith("2.")
    check(str((about if is_second else meta)["report_id"]) == report_id, "a report has another id")
    check(meta["entitlement_tag"] == tag, "a report has another entitlement")
    check((is_second and meta.get("utility_enabled") is True) == utility, "a report is of another mode")
    claims = [(m["start_time"], m["end_time"], int(m["value"]["value"])) for m in payload["measurements"] if m["metric_name"] == "ENTITLEMENT"]
    for start, end, value in stretches:
        at = start
        while at < end:
            after = [e for s, e, v in claims if s <= at < e and v == value]
            check(after, "usage counts that no measurement states")
            at = max(after)
    return (pid, serial), stretches, True


def integral(pieces, of):
    return sum(of(p) * (p["end"] - p["start"]) for p in pieces)


def measured(how, pieces, terms, of):
    (start, end), (first, last) = terms["segment"], terms["month"]
    if how == "peak":
        return Fraction(max((of(p) for p in pieces), default=0) * (end - start), last - first)
    if how == "average":
        return Fraction(integral(pieces, of), last - first)
    if how == "license-hours":
        return Fraction(integral(pieces, of), 3600)
    check(how == "license-days", "an unknown measure")
    days = zip(terms["days"], terms["days"][1:])
    return Fraction(sum(max((of(p) for p in pieces if p["start"] < b and p["end"] > a), default=0) for a, b in days if a < b))


def amount(terms, quantity):
    tiers = [(Fraction(up) if up else None, Fraction(price)) for up, price in terms["tiers"]]
    mode = terms["tier_mode"]
    if mode == "flat":
        return quantity * tiers[0][1]
    if mode == "package":
        return -(-quantity // Fraction(terms["package_size"])) * tiers[0][1]
    if mode == "volume":
        return quantity * next(price for up, price in tiers if up is None or quantity <= up)
    check(mode == "graduated", "an unknown kind of tiers")
    total, lower = Fraction(0), Fraction(0)
    for up, price in tiers:
        upper = quantity if up is None else min(up, quantity)
        if upper > lower:
            total, lower = total + (upper - lower) * price, upper
    return total


def recompute(line, terms, purchased, reports):
    """What the line should say, from the evidence alone."""
    start, end = terms["segment"]
    check(start < end and terms["month"][0] <= start and end <= terms["month"][1], "the segment is not of its month")
    by_device, steps = {}, []
    for device, stretches, is_verified in reports:
        for a, b, value in stretches:
            check(start <= a < b <= end and value > 0, "usage counts outside the segment")
            by_device.setdefault(device, []).append((a, b))
            steps += [(a, value, value * is_verified, 0), (b, -value, -value * is_verified, 0)]
    for spans in by_device.values():
        spans.sort()
        check(all(a[1] <= b[0] for a, b in zip(spans, spans[1:])), "usage of a device counts twice")
    for _, a, b, licenses in purchased:
        check(start <= a < b <= end, "a purchase lies outside the segment")
        steps += [(a, 0, 0, licenses), (b, 0, 0, -licenses)]
    bounds = sorted({start, end, *(s[0] for s in steps)})
    pieces = []
    for a, b in zip(bounds, bounds[1:]):
        before = [s for s in steps if s[0] <= a]
        pieces.append({"start": a, "end": b, "q": sum(s[1] for s in before), "v": sum(s[2] for s in before), "p": sum(s[3] for s in before)})
    of = (lambda p: max(0, p["q"] - p["p"])) if line["charge"] == "usage" else (lambda p: p["p"])
    quantity = half_even(measured(terms["measure"], pieces, terms, of), 6)
    due = Fraction(half_even(amount(terms, Fraction(quantity)), terms["minor_digits"]))
    used = integral(pieces, lambda p: p["q"])
    return {
        "consumed": half_even(measured(terms["measure"], pieces, terms, lambda p: p["q"]), 6),
        "purchased": half_even(measured(terms["measure"], pieces, terms, lambda p: p["p"]), 6),
        "quantity": half_even(Fraction(quantity) - Fraction(line["quantity_before"]), 6),
        "amount": half_even(due - Fraction(line["amount_before"]), terms["minor_digits"]),
        "verified_share": half_even(Fraction(integral(pieces, lambda p: p["v"]), used), 6) if used else "",
    }


def verify(text, operator_key=None, lines_root=None):
    """Checks a proof; gives what it shows, line by line."""
    proof = json.loads(text)
    check(canonical(proof) == text.rstrip("\n"), "the file is not as it was written")
    digest = proof.pop("sha256")
    check(hashlib.sha256(canonical(proof).encode()).hexdigest() == digest, "the file was changed")
    check(proof["format"] == "rumledger proof 1", "an unknown format")
    line, terms, purchased = proof["line"], json.loads(proof["terms"]), json.loads(proof["purchased"])
    leaves = sorted(leaf(r["entry"]) for r in proof["reports"])
    usage = root(leaves).hex()
    evidence = root([leaf(proof["terms"]), leaf(proof["purchased"]), leaf(usage)]).hex()
    check(line["usage_root"] == usage and line["evidence_root"] == evidence, "the evidence is not the line's")
    reports = [check_report(report) for report in proof["reports"]]
    if terms is None:
        check(not reports and not purchased, "a line that takes back has evidence")
        expected = {name: half_even(-Fraction(line[name + "_before"]), len(line[name].partition(".")[2])) for name in ("quantity", "amount")}
    else:
        for name, of_terms in (("charge", "charge"), ("currency", "currency"), ("entitlement", "item"), ("measure", "measure"), ("price_plan", "plan")):
            check(line[name] == terms[of_terms], f"the terms are of another {name}")
        expected = recompute(line, terms, purchased, reports)
    for name, value in expected.items():
        check(line[name] == value, f"{name} is {line[name]} on the line, and {value} by its evidence")
    period = proof["period"]
    top = root_by_path(leaf(canonical(line)), period["index"], period["size"], [unhex(h) for h in period["path"]]).hex()
    check(top == period["root"], "the line is not of its period's root")
    shown = [f"line {line['line_id']}: {line['currency']} {line['amount']} for {line['quantity']} {line['measure']} of {line['entitlement']}",
             f"computed anew from {len(reports)} reports, {sum(r[2] for r in reports)} with a signature that holds"]
    manifest = proof["manifest"]
    if manifest is not None:
        signature = manifest.pop("signature", None)
        check(set(manifest) == MANIFEST, "the manifest has other fields")
        check(manifest["lines_root"] == top and manifest["period"] == line["posted_period"] and manifest["lines"] == period["size"], "the manifest is of other lines")
        if signature:
            key = ed25519.Ed25519PublicKey.from_public_bytes(unhex(signature["public_key"]))
            try:
                key.verify(unhex(signature["value"]), canonical(manifest).encode())
            except InvalidSignature:
                raise Refused("the operator's signature does not hold")
        check(operator_key is None or (signature and signature["public_key"] == operator_key), "the manifest is not signed by that operator")
        shown.append(f"{line['posted_period']} is closed with {manifest['lines']} lines, " + (f"signed by {signature['public_key']}" if signature else "not signed"))
    else:
        check(operator_key is None, "the period is open: there is no manifest")
        shown.append(f"{line['posted_period']} is open: its root may still change")
    check(lines_root is None or lines_root == top, "the period has another root")
    return shown + [f"root of the period's lines: {top}"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("proof")
    parser.add_argument("--operator-key", metavar="HEX", help="the operator's public key, as published")
    parser.add_argument("--lines-root", metavar="HEX", help="the root of the period, as published")
    args = parser.parse_args()
    for name, given in (("--operator-key", args.operator_key), ("--lines-root", args.lines_root)):
        if given is not None and not re.fullmatch("[0-9a-f]{64}", given):
            parser.error(f"{name} takes 64 hexadecimal digits in lower case")
    try:
        with open(args.proof, encoding="utf-8", newline="") as file:
            print("\n".join(verify(file.read(), args.operator_key, args.lines_root)))
    except (Refused, ValueError, KeyError, TypeError, IndexError, AttributeError, StopIteration, ArithmeticError) as error:
        sys.exit(f"refused: {error or type(error).__name__}")


if __name__ == "__main__":
    main()
