"""The fixtures ``tcp_probe`` and ``tcp_probe_factory``: what a test author writes, and what a failure shows."""

import pytest

pytestmark = pytest.mark.poor_container

ISSUE = """
    import pytest

    def test_path(network, tcp_probe):
        client, *routers, db = network.chain(3)
        server = db.listen(("", 5432))
        p = tcp_probe(client, (db, 5432))
        assert p.open and p.hops == routers
        routers[1].run(["nft", "add table inet f; add chain inet f c { type filter hook forward priority 0; };"
                        "add rule inet f c tcp dport 5433 drop"], check=True)
        tcp_probe.expect(client, (db, 5433)).filtered(at=routers[1])
        tcp_probe.wait_open(client, (db, 5432), timeout=5)
        tcp_probe.matrix([client], [db], ports=[22, 80, 5432]).assert_equal({22: "closed", 80: "closed", 5432: "open"})
        server.close()

    def test_bare(netns_pair, tcp_probe):
        a, b = netns_pair
        assert tcp_probe(a, (b, 80)).open

    @pytest.fixture(scope="module")
    def shared(tcp_probe_factory):
        return tcp_probe_factory()

    def test_factory(netns_pair, shared):
        shared.expect(netns_pair.a, (netns_pair.b, 80)).closed()
"""


def test_the_first_test_that_anybody_writes(pytester, run):
    """The example of the documentation passes, and a bare assertion on a closed port explains itself."""
    pytester.makepyfile(ISSUE)
    result = run("--poor-container", subprocess=True)
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.re_match_lines(
        [r".*assert False", r".*<tcp 10\.\S+ -> 10\.\S+:80 is CLOSED \| no router on the way>\.open"]
    )


def test_off_is_off(pytester, run):
    """While the plugin is off such tests are skipped, and nothing of ours is loaded."""
    pytester.makepyfile(
        """
        def test_probe(tcp_probe):
            raise AssertionError
        """
    )
    run().assert_outcomes(skipped=1)


def test_a_failed_expectation_keeps_its_packets_when_asked(pytester, run):
    """With -vv the message ends with the path of a capture; without it does not."""
    pytester.makepyfile(
        """
        def test_probe(netns_pair, tcp_probe):
            tcp_probe.expect(netns_pair.a, (netns_pair.b, 80)).open()
        """
    )
    result = run("--poor-container", "-vv")
    result.assert_outcomes(failed=1)
    result.stdout.re_match_lines([r"E +packets: \S+probe\.pcap$"])
    result = run("--poor-container")
    result.stdout.no_re_match_line(r"E +packets: ")


def test_the_report_of_a_failed_test_has_its_last_probes(pytester, run):
    """Whatever failed: paths and verdicts of the last three probes stand in a section of their own."""
    pytester.makepyfile(
        """
        def test_probe(netns_pair, tcp_probe):
            for port in range(80, 85):
                tcp_probe(netns_pair.a, (netns_pair.b, port))
            raise RuntimeError
        """
    )
    result = run("--poor-container")
    result.assert_outcomes(failed=1)
    result.stdout.re_match_lines(
        [r"-+ poor-container: probes -+", r"tcp \S+ -> \S+:82 is CLOSED", r"tcp \S+ -> \S+:84 is CLOSED"]
    )
    result.stdout.no_re_match_line(r"tcp \S+ -> \S+:81 is CLOSED")
