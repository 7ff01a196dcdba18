"""Users for a test: made in the stack's database, each with a session of its own."""

import uuid


class User:
    """Someone signed in. `token` is a good one."""

    def __init__(self, stack, tier=None, keys=0):
        self.id = str(uuid.uuid4())
        self.session = "5e550000" + self.id[8:]
        self.stack = stack
        stack.psql(
            f"""
            INSERT INTO auth.users (id, email) VALUES ('{self.id}', '{self.id}@example.com');
            INSERT INTO auth.sessions (id, user_id) VALUES ('{self.session}', '{self.id}');
            {f"INSERT INTO public.accounts (user_id, tier) VALUES ('{self.id}', '{tier}');" if tier else ""}
            INSERT INTO public.api_keys (user_id, key_prefix, key_hash, name, tier, scopes)
            SELECT '{self.id}', 'sk_live_T3st', sha256(('{self.id}' || n)::bytea), 'Key ' || n, 'free',
                '{{read:iocs,read:articles}}' FROM generate_series(1, {keys}) AS n"""
        )
        self.token = stack.mint("--user", self.id, "--session", self.session)

    def counts(self, columns="minute_count, day_count"):
        """The row of request_counts, `|` between its columns; empty when there is none."""
        return self.stack.psql(f"SELECT {columns} FROM request_counts WHERE user_id = '{self.id}'")

    def set_counts(self, assignments):
        self.stack.psql(f"UPDATE request_counts SET {assignments} WHERE user_id = '{self.id}'")

    def get(self, stack=None, **options):
        return (stack or self.stack).get(token=self.token, **options)


def lift_limits(stack):
    """For tests that load the stack: nobody runs into his limit."""
    stack.psql("UPDATE tiers SET requests_per_minute = 100000000, requests_per_day = 1000000000")


def counter(stack, name):
    """A counter of the whole pool."""
    text = stack.get("/metrics", url=stack.status_url).body.decode()
    return next(int(line.split()[-1]) for line in text.splitlines() if line.startswith(name + " "))
