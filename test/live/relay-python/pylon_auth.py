"""For nostr-relay: whoever has logged in may read and write, and nobody else."""

from nostr_relay.auth import Authenticator


class LoggedIn(Authenticator):
    async def authenticate(self, auth_event_json, challenge=""):
        token = await super().authenticate(auth_event_json, challenge=challenge)
        token["roles"] = {"r", "w"}
        return token
