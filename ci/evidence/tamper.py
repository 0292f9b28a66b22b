"""Changes proofs byte by byte, and mends their outer digest as a forger would: each must be refused."""
import hashlib, importlib.util, json, random, sys

spec = importlib.util.spec_from_file_location("verify_proof", sys.argv[1])
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)
ERRORS = (tool.Refused, ValueError, KeyError, TypeError, IndexError, AttributeError, StopIteration, ArithmeticError)


def refused(text):
    try:
        tool.verify(text)
    except ERRORS:
        return True
    return False


def mended(text):
    """The same text with the digest that fits it, if it is JSON still."""
    try:
        proof = json.loads(text)
        proof.pop("sha256")
    except (ValueError, KeyError, AttributeError):
        return None
    proof["sha256"] = hashlib.sha256(tool.canonical(proof).encode()).hexdigest()
    return tool.canonical(proof)


random.seed(1)
proofs = sorted(sys.argv[2:], key=lambda name: len(open(name, encoding="utf-8").read()))
# The smallest at every byte, those after it at some.
plain = forged = 0
for n, name in enumerate(proofs):
    whole = open(name, encoding="utf-8").read().rstrip("\n")
    assert not refused(whole), name
    places = range(len(whole)) if n == 0 else random.sample(range(len(whole)), 20)
    for at in places:
        changed = whole[:at] + chr(ord(whole[at]) ^ 1 << random.randrange(7)) + whole[at + 1:]
        assert refused(changed), f"{name}: byte {at} changed unseen"
        plain += 1
        again = mended(changed)
        if again is None or again == whole:
            continue
        assert refused(again), f"{name}: byte {at} forged unseen: {changed[max(0, at - 60):at + 20]}"
        forged += 1
print(f"{plain} changed and {forged} forged proofs are refused")
