"""A real controller without its broker: database, keys, a trusted release key, the web app."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import shutil
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from fastapi import FastAPI
from sqlalchemy import insert

from controller import schema
from controller.app import build_app, build_services
from controller.config import load_settings
from controller.database import reading, writing
from controller.enrolment import Sealed, create_token, enrol
from controller.people.directory import secret_hash
from controller.people.person import Person
from controller.people.roles import ADMIN
from controller.releases import publish as upload
from controller.repository.publish import publish, read_base
from controller.services import Services
from controller.setup import initialise, trust_release_key
from shoal.csr import make_request
from shoal.package import Package, file_entries, make_package, write_package
from shoal.protocol.desired import EnrolmentRequest
from shoal.protocol.identity import proved_by_token
from shoal.protocol.manifest import Contract, Feature, Manifest, OutputField, Requires, Variant
from shoal.protocol.targets import DirectorKeys
from shoal.signing import FileSigner
from shoal.trust import ceremony
from shoal.trust.desk import target_of_package
from shoal.trust.metadata import RoleKeys
from shoal.trust.roles import ROOT, SNAPSHOT, TARGETS, TIMESTAMP

MakePackage = Callable[..., Package]


@pytest.fixture(scope="session")
def signer() -> FileSigner:
    """The release key that the controller trusts."""
    return FileSigner.generate()


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, signer: FileSigner) -> Path:
    """A controller's folder as `init` makes it."""
    folder = tmp_path_factory.mktemp("controller")
    path = folder / "controller.toml"
    path.write_text('data_dir = "data"\n[web]\nanonymous = "none"\n')
    settings = load_settings(path)
    initialise(settings)
    trust_release_key(settings, signer.public_key)
    return folder


@pytest.fixture
def services(tmp_path: Path, template: Path) -> Iterator[Services]:
    """Everything that the controller's parts are handed, over SQLite in a folder of its own."""
    folder = tmp_path / "controller"
    shutil.copytree(template, folder)
    services = build_services(load_settings(folder / "controller.toml"))
    yield services
    services.engine.dispose()


@pytest.fixture
def add_people(services: Services) -> Callable[[dict[str, str], str], None]:
    """`add_people({"ann": "releaser"}, "ann")`: tokens that are a name each; one has an account.

    What begins with that one's name is theirs.
    """

    def add(people: dict[str, str], known: str) -> None:
        with writing(services.engine) as connection:
            connection.execute(insert(schema.users).values(
                name=known, role=people[known], password_hash="", created_ms=1, created_by="x",
                password_ms=1,
            ))  # fmt: skip
            for name, role in people.items():
                connection.execute(insert(schema.api_tokens).values(
                    token_id=name, name=name, role=role, token_hash=secret_hash(name),
                    created_ms=1, owner=known if name.startswith(known) else "",
                ))  # fmt: skip

    return add


class Signers:
    """The offline side: keys, and proposals made from what the controller gives."""

    def __init__(self, services):
        self.services = services
        self.root, self.targets = FileSigner.generate(), FileSigner.generate()

    @property
    def now(self):
        return datetime.now(UTC)

    def contents(self):
        with reading(self.services.engine) as connection:
            return read_base(self.services, connection, None).contents()

    def first(self, **roles):
        ring = self.services.keyring
        keys = {
            ROOT: RoleKeys((self.root.public_key,)),
            TARGETS: RoleKeys((self.targets.public_key,)),
            SNAPSHOT: RoleKeys(tuple(ring.public_keys(SNAPSHOT))),
            TIMESTAMP: RoleKeys(tuple(ring.public_keys(TIMESTAMP))),
        }
        director = DirectorKeys(keys=ring.public_keys("director"))
        proposal = ceremony.propose_first(keys | roles, director, self.now, 2)
        return self.sign(proposal, self.root, self.targets)

    def publish_first(self):
        """Publish root and targets, where there are none."""
        if self.contents() is None:
            publish(self.services, self.first(), Person("ann", ADMIN))

    def sign(self, proposal, *signers):
        contents = self.contents()
        for one in signers:
            ceremony.sign_proposal(contents, proposal, one)
        return proposal

    def release(self, package, *signers):
        proposal = ceremony.propose_releases(
            self.contents(), [target_of_package(package)], self.now
        )
        return self.sign(proposal, *(signers or (self.targets,)))


class Api:
    """HTTP to the real application, without a socket; a defect shows as status 500."""

    def __init__(self, app: FastAPI, services: Services) -> None:
        self.app = app
        app.state.services = services
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://controller")
        self._runner = asyncio.Runner()

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Send one request and wait for the whole answer."""
        return self._runner.run(self._client.request(method, path, **more))

    def get(self, path: str, **more: Any) -> httpx.Response:
        """GET."""
        return self.request("GET", path, **more)

    def post(self, path: str, **more: Any) -> httpx.Response:
        """POST."""
        return self.request("POST", path, **more)

    def close(self) -> None:
        """Let go of the loop."""
        self._runner.run(self._client.aclose())
        self._runner.close()


@pytest.fixture(scope="session")
def app(template: Path) -> FastAPI:
    """The application; each test hands it services of its own."""
    services = build_services(load_settings(template / "controller.toml"))
    services.engine.dispose()
    return build_app(services)


@pytest.fixture
def api(app: FastAPI, services: Services) -> Iterator[Api]:
    """Requests without a token."""
    api = Api(app, services)
    yield api
    api.close()


@pytest.fixture
def operator(services: Services) -> dict[str, str]:
    """Headers of the operator that `init` made."""
    token = services.settings.token_file.read_text().strip()
    return {"authorization": f"Bearer {token}"}


@pytest.fixture
def make_pump(signer: FileSigner) -> MakePackage:
    """`make_pump("1.0", 1, signers=…, data=…)`: a small signed package of the model pump."""

    def make(
        version: str = "1.0",
        sequence: int = 1,
        signers: tuple[FileSigner, ...] | None = None,
        data: bytes = b"model",
        requires: Requires | None = None,
    ) -> Package:
        files = {"model.tflite": data}
        manifest = Manifest(
            model="pump",
            version=version,
            sequence=sequence,
            created="2026-01-01T00:00:00+00:00",
            files=file_entries(files),
            variants=[Variant(name="only", file="model.tflite", requires=requires or Requires())],
            contract=Contract(features=[Feature(name="t")], outputs=[OutputField(name="y")]),
        )
        return make_package(manifest, files, *((signer,) if signers is None else signers))

    return make


@pytest.fixture
def package_file(tmp_path: Path) -> Callable[[Package], Path]:
    """Writes a package."""

    def write(package: Package) -> Path:
        path = tmp_path / f"{package.manifest.version}.shoal"
        write_package(package, path)
        return path

    return write


@pytest.fixture
def request_of() -> Callable[..., EnrolmentRequest]:
    """`request_of(token, "gw-1", site="jfk")`: what a device sends that holds a token."""

    def make(
        token: str, device: str, site: str = "jfk", csr: bytes | None = None, **changes: Any
    ) -> EnrolmentRequest:
        token_id, _, text = token.partition(".")
        secret = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        nonce = os.urandom(24)
        csr = make_request(device, FileSigner.generate()) if csr is None else csr
        signed = proved_by_token(device, site, nonce, csr)
        request = EnrolmentRequest(
            token_id=token_id or None,
            device=device,
            site=site,
            profile="p",
            csr=csr,
            nonce=nonce,
            proof=hmac.new(secret, signed, hashlib.sha256).digest(),
        )
        return msgspec.structs.replace(request, **changes)

    return make


@pytest.fixture
def enrolled(
    services: Services, request_of: Callable[..., EnrolmentRequest], signers: Signers
) -> Callable[..., Sealed]:
    """`enrolled("gw-1", site="jfk")`: makes a device part of the fleet."""

    def make(device: str, site: str = "jfk") -> Sealed:
        signers.publish_first()
        token = create_token(
            services, "ann", device=device, site=None, labels={}, expires_seconds=None
        )
        sealed = enrol(services, request_of(token["token"], device, site))
        assert isinstance(sealed, Sealed)
        return sealed

    return make


@pytest.fixture
def signers(services: Services) -> Signers:
    """Who holds the offline keys; nothing is published yet."""
    return Signers(services)


@pytest.fixture
def rooted(signers: Signers) -> None:
    """Root and targets are published, so devices can be enrolled."""
    signers.publish_first()


@pytest.fixture
def release(
    services: Services, signers: Signers, package_file: Callable[[Package], Path]
) -> Callable[[Package], None]:
    """`release(package)`: uploaded, and published by the signers of targets."""

    def run(package: Package) -> None:
        upload(services, package_file(package), "ann")
        signers.publish_first()
        publish(services, signers.release(package), Person("ann", ADMIN))

    return run
