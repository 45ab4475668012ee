"""How the page looks: two palettes, and rules that hold from a phone to a wide screen and on paper."""

_LIGHT = """
--page:#fbfaf7;--surface:#fff;--ink:#1b1f24;--muted:#5d6570;--line:#dcdad3;--trained:#0a5fbf;--untrained:#a9570a;
--pixels:#7647a6;--random:#747b85;--expert:#23804f;--bad:#b3261e;--good:#1f7a4a;--weak:#8a6100;--wash:#f1efe9;
"""
_DARK = """
--page:#14171b;--surface:#1b1f25;--ink:#e8e6e1;--muted:#a0a8b3;--line:#343a43;--trained:#6fb3ff;--untrained:#f0a54a;
--pixels:#c09bf2;--random:#98a0ab;--expert:#6cc795;--bad:#ff8a80;--good:#6cc795;--weak:#e3b341;--wash:#22272e;
"""
CSS = f"""
:root{{color-scheme:light dark;--font:system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;{_LIGHT}}}
@media(prefers-color-scheme:dark){{:root{{{_DARK}}}}}
*{{box-sizing:border-box}}
html{{-webkit-text-size-adjust:100%}}
body{{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 var(--font)}}
main,header,footer{{max-width:1150px;margin:0 auto;padding:0 18px}}
header{{padding-top:34px}}
h1{{font-size:1.15rem;font-weight:600;margin:0;color:var(--muted)}}
h2{{font-size:1.35rem;margin:56px 0 6px;letter-spacing:-.01em}}
h3{{font-size:1rem;margin:26px 0 4px}}
p{{margin:6px 0;max-width:68ch}}
.lead,.muted,figcaption,footer{{color:var(--muted)}}
figcaption,footer,.small{{font-size:.86rem;line-height:1.45}}
nav{{display:flex;flex-wrap:wrap;gap:4px 16px;margin-top:10px;font-size:.9rem}}
a{{color:var(--trained);text-decoration:none}}
a:hover{{text-decoration:underline}}
.claims{{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,300px),1fr));gap:16px;margin:18px 0}}
.claim{{background:var(--surface);border:1px solid var(--line);border-top:4px solid var(--muted);border-radius:10px}}
.claim{{padding:14px 18px 16px;margin:16px 0}}.claims .claim{{margin:0}}
.claim.good{{border-top-color:var(--good)}}.claim.weak{{border-top-color:var(--weak)}}.claim.bad{{border-top-color:var(--bad)}}
.claim .topic{{font-size:.82rem;color:var(--muted);margin:0}}
.claim .said{{font-size:1.12rem;font-weight:600;line-height:1.35;margin:2px 0 6px}}
.claim.hero .said{{font-size:clamp(1.6rem,5vw,2.5rem);letter-spacing:-.02em;line-height:1.15;margin:4px 0 8px}}
.hero table{{width:100%}}
.two{{align-items:center;display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,360px),1fr));gap:8px 36px}}
.short{{border:1px solid var(--bad);border-left-width:6px;border-radius:10px;background:var(--surface)}}
.short{{padding:12px 18px;margin:18px 0}}
.short h3{{margin:0 0 4px;color:var(--bad)}}
.short.none{{border-color:var(--line);border-left-color:var(--good)}}.short.none h3{{color:var(--good)}}
ul{{margin:6px 0;padding-left:20px}}li{{margin:4px 0;max-width:78ch}}
.figures{{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,340px),1fr));gap:24px 30px;margin:16px 0}}
figure{{margin:0;min-width:0}}
figure svg{{display:block;width:100%;max-width:440px;height:auto;overflow:visible}}
figure.wide{{grid-column:1/-1}}
.scroll,.strip{{overflow-x:auto;-webkit-overflow-scrolling:touch}}
.strip img{{display:block;max-width:none;height:auto;min-width:min(100%,900px);border-radius:6px}}
.strip.fits img{{max-width:100%;min-width:0}}
video{{width:100%;max-width:340px;border-radius:6px;background:#000;display:block}}
table{{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums;margin:8px 0}}
th,td{{text-align:left;padding:5px 16px 5px 0;border-bottom:1px solid var(--line);vertical-align:top}}
th{{font-weight:600;color:var(--muted);font-size:.82rem;white-space:nowrap}}
td.n,th.n{{text-align:right;white-space:nowrap}}
code{{font:.86em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere}}
.good-t{{color:var(--good)}}.weak-t{{color:var(--weak)}}.bad-t{{color:var(--bad)}}
ol.chain{{list-style:none;margin:14px 0;padding:0}}
ol.chain>li{{position:relative;padding:0 0 18px 26px;max-width:none}}
ol.chain>li::before{{content:"";position:absolute;left:4px;top:.45em;width:11px;height:11px;border-radius:50%;background:var(--trained)}}
ol.chain>li:not(:last-child)::after{{content:"";position:absolute;left:9px;top:1.3em;bottom:-.2em;width:1px;background:var(--line)}}
ol.chain>li.open::before{{background:var(--page);border:2px solid var(--muted)}}
details{{margin:10px 0}}summary{{cursor:pointer;color:var(--trained)}}
.name{{white-space:nowrap}}
footer{{margin-top:60px;padding-top:14px;padding-bottom:50px;border-top:1px solid var(--line)}}
@page{{margin:14mm}}
@media print{{
:root{{{_LIGHT}--page:#fff;color-scheme:light}}
body{{font-size:10.5pt}}main,header,footer{{max-width:none;padding:0}}header{{padding-top:0}}
nav,video{{display:none}}
h2{{margin-top:26px}}h2,h3,.lead,summary{{break-after:avoid}}
figure,.claim,.short,tr,ol.chain>li{{break-inside:avoid}}
.figures,.claims{{grid-template-columns:1fr 1fr;gap:14px 22px}}.two{{grid-template-columns:3fr 4fr}}
.scroll,.strip{{overflow:visible}}.strip img{{max-width:100%;min-width:0}}
table{{font-size:8pt}}th{{font-size:7.5pt}}th,td,td.n,th.n{{padding-right:9px;white-space:normal}}
}}
"""
