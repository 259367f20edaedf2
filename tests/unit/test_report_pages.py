"""The pages of reports: pictures of any number of hosts, and facts of any kind, are pages that browsers can read."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sent import NAMES, tcp

from pytest_poorcontainer.lab.events import Event
from pytest_poorcontainer.report.evidence import HostFacts, NetworkFacts, ServiceFacts, look
from pytest_poorcontainer.report.index import index, index_page
from pytest_poorcontainer.report.markup import Markup, document, element, text
from pytest_poorcontainer.report.page import Story, findings, page
from pytest_poorcontainer.report.picture import activity, ladder_picture, topology
from pytest_poorcontainer.report.states import states
from pytest_poorcontainer.report.text import conversations_text, sections, timeline_text
from pytest_poorcontainer.report.traffic import Traffic
from pytest_poorcontainer.traffic.pcapng import Interface

INTERFACES = (Interface(1, "a eth0", ""), Interface(2, "b eth0", ""))
TALK = (tcp("a", "S", at=1, seq=1), tcp("b", "RA", at=2, ack=2))


def network(count, state="up"):
    """Return so many hosts, each linked to the first."""
    hosts = [HostFacts(f"h{number}", "namespaces", "", (f"10.0.0.{number}",), (), (), ()) for number in range(count)]
    links = [(f"h0 -- {host.name}", state) for host in hosts[1:]]
    return NetworkFacts(tuple(hosts), tuple(links))


def traffic(**more):
    """Return the traffic of a refused connection."""
    return Traffic(0, **{"frames": TALK, "interfaces": INTERFACES, "names": NAMES, **more})


def drawn(picture):
    """Return a picture as XML: what is not well-formed is an error."""
    assert picture is not None
    return ElementTree.fromstring(picture)


SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 50, 200])
def test_all_hosts_are_in_the_picture_and_none_covers_another(count):
    """Every host has a box within the picture, every link a line, and boxes do not overlap."""
    picture = drawn(topology([network(count)]))
    _, _, wide, high = map(float, picture.get("viewBox", "").split())
    boxes = [
        tuple(float(box.get(name, "")) for name in ("x", "y", "width", "height")) for box in picture.iter(f"{SVG}rect")
    ]
    assert len(boxes) == count
    assert len(list(picture.iter(f"{SVG}line"))) == count - 1
    assert all(x >= 0 and y >= 0 and x + w <= wide and y + h <= high for x, y, w, h in boxes)
    covered = [
        (one, other)
        for at, one in enumerate(boxes)
        for other in boxes[:at]
        if abs(one[0] - other[0]) < one[2] and abs(one[1] - other[1]) < one[3]
    ]
    assert covered == []


def test_a_link_that_is_not_up_is_marked():
    """Its line is dashed and red, and its state is said in words."""
    picture = topology([network(2, "unplugged")])
    assert picture is not None
    assert 'class="wire bad"' in picture
    assert ">unplugged</text>" in picture


def test_a_switch_has_a_box_too():
    """What links name and nobody knows the facts of is drawn all the same."""
    facts = NetworkFacts(network(1).hosts, (("h0 -- switch", "up"),))
    assert [box.text for box in drawn(topology([facts])).iter(f"{SVG}text") if box.text == "switch"] == ["switch"]
    assert topology([]) is None


def test_the_chart_has_a_row_for_each_interface_and_a_mark_for_each_event():
    """Frames are bars at their times; what was done is a numbered line."""
    chart = drawn(activity(traffic(events=(Event(1_500_000, "cut"),))))
    assert len(list(chart.iter(f"{SVG}rect"))) == 2
    assert [line.get("class") for line in chart.iter(f"{SVG}line")] == ["rail", "rail", "event"]
    assert activity(Traffic(0)) is None


def test_numbers_of_events_at_one_place_are_one_label():
    """The first and the last of them, so that none covers another; each has its line, and one apart its own number."""
    events = tuple(Event(time, "x") for time in (0, 1, 2, 900_000))
    chart = drawn(activity(traffic(events=events)))
    assert [text.text for text in chart.iter(f"{SVG}text") if text.get("class") == "warm"] == ["1-3", "4"]
    assert [line.get("class") for line in chart.iter(f"{SVG}line")].count("event") == 4


def service(name, state):
    """Return the facts of a service that has said nothing."""
    return ServiceFacts(name, state, 0, SimpleNamespace(log_tail=lambda _: "", log=""))


def with_services(*services):
    """Return a host with services, which is one of two on a cut link."""
    facts = network(2, "cut")
    return replace(facts, hosts=(replace(facts.hosts[0], services=services), facts.hosts[1]))


def test_a_host_whose_service_has_died_is_marked():
    """Its box is red, and the service and its end are said in words; a stopped one is well."""
    picture = topology([with_services(service("db", "exited 3"), service("web", "stopped"))])
    assert [box.get("class") for box in drawn(picture).iter(f"{SVG}rect")] == ["node bad", "node"]
    assert ">db exited 3</text>" in picture


def test_what_is_odd_is_said_before_all_else():
    """Services that died, links that are not up, trouble of hosts, the latest odd conversations; on the index too."""
    facts = with_services(service("db", "killed by SIGSEGV"), service("web", "ready"))
    facts = replace(facts, hosts=(facts.hosts[0], replace(facts.hosts[1], trouble=("its sockets: gone",))))
    story = Story("t::x", 1, "call", [facts], traffic(), [("failure", "assert 0")])
    found = ["h0: db killed by SIGSEGV", "h0 -- h1: cut", "h1: its sockets: gone"]
    assert findings(story)[:3] == found
    assert findings(story)[3].endswith("RST: refused")
    html = page(story)
    assert html.index("<h2>what is odd</h2>") < html.index(f"<li>{found[0]}</li>") < html.index("<h2>failure</h2>")
    assert "h0: db killed by SIGSEGV; h0 -- h1 cut; RST: refused" in index_page([("place", states(story))])
    well = Story("t::y", 1, "call", [network(2)], None)
    assert findings(well) == []
    assert "what is odd" not in page(well)


def test_a_long_ladder_is_cut_in_the_middle():
    """A figure has at most some eighty lines, and says how many it leaves out."""
    frames = [tcp("a", "S", at=n, seq=1) for n in range(300)]
    (conversation,) = traffic(frames=tuple(frames)).conversations
    figure = ladder_picture(conversation, traffic())
    assert "220 more" in figure
    assert figure.count("<path") == 80


def test_what_is_escaped_is_escaped_once():
    """Text is escaped, markup is not touched, and attributes without a value are left out."""
    assert element("p", "<&>\x07", Markup("<b>x</b>"), class_=None, data_x='"') == (
        '<p data-x="&quot;">&lt;&amp;&gt;\\x07<b>x</b></p>'
    )
    assert text("\ud800") == "\\ud800"


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=60))
def test_any_text_makes_a_page(words):
    """Whatever a test, an event, a host or a failure is called, the page has it as text, and pictures stay whole."""
    host = HostFacts(words, words, words, (words,), (), (words,), (words,), words, (words,), words, words)
    facts = NetworkFacts((host,), ((f"{words} -- {words}", words),))
    seen = traffic(events=(Event(1, words),), trouble=words)
    story = Story(words, 1, "call", [facts], seen, [(words, words)], [words], [(words, words, words)], words)
    html = page(story)
    assert html.count("<style>") == html.count("</html>") == 1
    assert "<script" not in html
    html.encode()
    json.loads(json.dumps(states(story)))
    picture = topology([facts])
    assert picture is not None
    assert drawn(picture).tag == f"{SVG}svg"


def test_a_page_needs_nothing_but_itself():
    """It may not load or run anything, by its own policy, and it is light or dark as its reader is."""
    html = page(Story("test", 1, "call", [network(2)], traffic()))
    assert "default-src 'none'" in html
    assert "prefers-color-scheme: dark" in html
    assert "RST: refused" in html


def test_a_page_of_a_container_without_a_network(tmp_path):
    """A test without traffic has a page of its hosts and texts."""
    host = HostFacts("env", "namespaces", "", (), (), (), ("its sockets: gone",))
    html = page(Story("test", 2, "setup", [NetworkFacts((host,), ())], None, [("failure", "why")]))
    assert "its sockets: gone" in html
    assert "conversations" not in html


def test_the_index_survives_what_it_finds(tmp_path):
    """A report without states, or with other ones than ours, has a line; the others have theirs."""
    for name, content in (
        ("good", json.dumps(states(Story("t::x", 1, "call", [network(2, "cut")], traffic())))),
        ("bad", "[1]"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "states.json").write_text(content)
    html = index(tmp_path, [tmp_path / "good", tmp_path / "bad", tmp_path / "none", tmp_path / "good"])
    assert "3 reports" in html
    assert "h0 -- h1 cut; RST: refused" in html
    assert 'href="bad/report.html"' in html
    assert 'href="none/report.html"' in html
    assert "Nothing has failed" in index_page([])


def test_what_can_draw_itself_is_drawn():
    """A group with a picture of itself has it in the report; what goes wrong with that is told in its place."""

    class Group:
        containers = ()

        def __init__(self, draw):
            self.links = [SimpleNamespace(names=("a", "b"), state="up", medium="veth")]
            self.draw = draw

    facts = look([Group(lambda: "[s1]\n`-- a\n"), Group(lambda: 1 // 0)], {})
    assert dict(sections(facts))["poor-container: topology"] == (
        "[s1]\n`-- a\nits picture: ZeroDivisionError: integer division or modulo by zero"
    )


def test_trouble_and_loss_are_told():
    """Without frames the reason stands there; lost frames are counted, before anybody concludes from silence."""
    assert conversations_text(traffic(trouble="the recorder has ended")) == "not known: the recorder has ended"
    assert conversations_text(traffic(lost=7)).startswith("7 frames were lost")
    assert timeline_text(traffic(events=tuple(Event(n, "x") for n in range(50)))).startswith(
        "... and 10 more earlier\n"
    )


def test_of_what_was_left_out_nothing_is_said():
    """Nothing is said of answers that may be left out."""
    question = tcp("b", "S", at=5, seq=1, ports=(9, 9))
    (silent,) = traffic(frames=(question,)).conversations
    assert silent.odd == "no answer to 1 SYN"
    (unknown,) = traffic(frames=(question,), known_since={"10.0.0.1": 6_000_000}).conversations
    assert unknown.odd == ""


def test_a_document_has_a_title_and_a_body():
    """The frame of every page."""
    html = document("<t>", element("p", "x"))
    assert html.startswith("<!DOCTYPE html>")
    assert "<title>&lt;t&gt;</title>" in html
