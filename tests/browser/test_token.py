"""A store that wants a token: the page asks for it, once, and for another one if it does not hold."""

import base64
import json
import time
from pathlib import Path

import jwt
from conftest import Eyes, free_port, serving
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from playwright.sync_api import expect


def test_the_page_asks_for_a_token(eyes: Eyes, tmp_path: Path):
    """A wrong one is refused with the reason; with a right one the page works, the stream too."""
    key, port = Ed25519PrivateKey.generate(), free_port()
    config = {
        "main": {
            "addr": f"127.0.0.1:{port}",
            "jwt-public-key": base64.b64encode(key.public_key().public_bytes_raw()).decode(),
            "db": str(tmp_path / "job.db"),
        },
        "metric-store": {
            "retention-in-memory": "1h",
            "memory-cap": 0,
            "checkpoints": {"directory": str(tmp_path / "checkpoints")},
        },
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    now = int(time.time())
    expired, good = (
        jwt.encode({"sub": "ann", "roles": ["user"], "exp": now + seconds}, key, "EdDSA")
        for seconds in (-9, 99)
    )
    page = eyes.page
    with serving(path, port) as url:
        page.goto(f"{url}/#/store")
        dialog = page.locator("#login")
        expect(dialog).to_be_visible()
        page.get_by_label("JSON Web Token").fill(expired)
        page.keyboard.press("Enter")
        expect(page.locator("#login-error")).to_have_text("token of 'ann': expired")
        page.get_by_label("JSON Web Token").fill(good)
        page.keyboard.press("Enter")
        expect(dialog).to_be_hidden()
        expect(page.get_by_text("They add up: nothing got lost.")).to_be_visible()
        expect(page.locator("#link")).to_have_text("live")
