"""Every body of the sled agent API, as it stands on the wire.

Rules kept here:
- Request bodies refuse unknown fields and every lax conversion (`true`, `1.0` and `"1"` are not
  integers). Answers are as strict about types, but a reader ignores fields it does not know: later
  versions only add, and an older client must not break on what was added.
- Hashes are accepted in any case and are lower-case, sorted and unique from here on.
- Times are RFC 3339 in UTC; sizes are bytes and end in `_bytes`.
- Lists are bounded by the body limit; the first wrong item ends the check, so that a bad body of
  100,000 hashes costs one error and not 100,000.
"""
