"""The service's own page: what it answers, and how to ask."""

import html

from data_prep.labels import SAFE, UNSAFE
from recipes.adapter.safety_record import SafetyRecord
from recipes.serving.gate import Rules

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{safe} or {unsafe}?</title>
<style>body{{font-family:system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem}}
pre{{overflow:auto}}</style>
<h1>{safe} or {unsafe}?</h1>
<p>The adapter <b>{adapter}</b> on <b>{base}</b> is asked: <q>{prompt}</q></p>
<p>It is not a safety device. It judges single frames and misses things. Frames are neither kept nor sent on.</p>
<pre>curl --data-binary @frame.jpg {address}/answer
curl -F camera=gate -F frame=@frame.jpg {address}/answer
curl -F frame=@1.jpg -F frame=@2.jpg {address}/answers</pre>
{token}<ul>
<li>POST /answer: a JPEG or PNG as the body, or as a part of a form. What comes is an object: answer,
p_unsafe (the probability), threshold, latency_ms.</li>
<li>POST /answers: a form of several frames. What comes is a list, in their order; an object with error stands
in the place of a frame that can't be read.</li>
<li>camera, in the form or the query, and X-Request-Id come back as they came.</li>
<li>At most {megabytes:g} MB a request. 503 says in Retry-After when to ask again.</li>
<li>GET /health, GET /metrics (for Prometheus)</li>
</ul>
"""
_TOKEN = "<p>Each request needs the header <code>Authorization: Bearer TOKEN</code>.</p>\n"


def how_to_ask(record: SafetyRecord, adapter: str, rules: Rules, address: str) -> str:
    """Return the page, as HTML that asks nobody for anything more. `adapter` is its name."""
    return _PAGE.format(
        safe=SAFE,
        unsafe=UNSAFE,
        adapter=html.escape(adapter),
        base=html.escape(record.base_model),
        prompt=html.escape(" ".join(record.prompt.split())),
        address=html.escape(address),
        token=_TOKEN if rules.token else "",
        megabytes=rules.max_bytes / 1_000_000,
    )
