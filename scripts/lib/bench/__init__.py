"""What callerid costs: direct, bare ``mitmdump`` and callerid, interleaved in one run.

callerid runs as in production: TLS interception, token identity, rules, a shared credential, a durable
audit row before each call and an outcome row after it. Machines are noisy: read the ratios and the
differences of one run, and make several runs.
"""
