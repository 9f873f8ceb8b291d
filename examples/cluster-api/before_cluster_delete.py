#!/usr/bin/env python3
"""A Runtime Extension of Cluster API that releases load balancers before a cluster is deleted.

Cluster API calls the hook BeforeClusterDelete after somebody has deleted a Cluster object, and before
it deletes anything of the cluster. While the hook answers with `retryAfterSeconds`, the cluster stays.
This server starts `ballast teardown --wait` with the kubeconfig of the workload cluster, which Cluster
API keeps in the Secret NAME-kubeconfig, and answers "later" until it has succeeded.

The annotation examples.ballast.dev/skip-teardown: "true" on the Cluster lets the deletion go on, for
example if the API server of the workload cluster is gone. Then look for what is left:

    ballast orphans --region eu-central-1 --cluster NAME

Needs nothing but Python 3.9 and the program `ballast`. extension.yaml deploys it.

Tried: the tests of Ballast send the requests of Cluster API to this program, over HTTP, and it tears
a real cluster down (e2e/tests/examples.rs). Not tried: with Cluster API itself.
"""

import base64
import json
import os
import ssl
import subprocess
import tempfile
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GROUP = "hooks.runtime.cluster.x-k8s.io/v1alpha1"
NAME = "ballast-teardown"
SKIP = "examples.ballast.dev/skip-teardown"
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
RETRY_SECONDS = 10
MAX_BODY = 8 * 1024 * 1024

lock = threading.Lock()
running = {}  # (namespace, name, uid) of a Cluster: its teardown
done = set()  # those whose teardown has succeeded


def kubeconfig_of(namespace, name):
    """The kubeconfig of a workload cluster; None if there is none (yet)."""
    api = os.environ.get("MANAGEMENT_API", "https://kubernetes.default.svc")
    request = urllib.request.Request(f"{api}/api/v1/namespaces/{namespace}/secrets/{name}-kubeconfig")
    context = None
    if api.startswith("https:"):
        context = ssl.create_default_context(cafile=f"{ACCOUNT}/ca.crt")
        with open(f"{ACCOUNT}/token") as token:
            request.add_header("Authorization", "Bearer " + token.read().strip())
    try:
        with urllib.request.urlopen(request, timeout=5, context=context) as answer:
            secret = json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise
    return base64.b64decode(secret["data"]["value"])


def teardown(kubeconfig):
    """Starts a teardown in the background: a hook has 10 seconds to answer."""
    file = tempfile.NamedTemporaryFile()
    file.write(kubeconfig)
    file.flush()
    command = "ballast teardown --wait --yes --timeout 15m --reason BeforeClusterDelete --lease-namespace ballast-system"
    process = subprocess.Popen(command.split(), env={**os.environ, "KUBECONFIG": file.name})
    process.file = file  # The file lives as long as the process is known.
    return process


def later(message):
    return {"status": "Success", "retryAfterSeconds": RETRY_SECONDS, "message": message}


def before_cluster_delete(request):
    meta = request["cluster"]["metadata"]
    key = (meta["namespace"], meta["name"], meta.get("uid", ""))
    if (meta.get("annotations") or {}).get(SKIP) == "true":
        return {"status": "Success", "message": f"the annotation {SKIP} is set"}
    with lock:
        if key in done:
            return {"status": "Success", "message": "all load balancers are released"}
        process = running.get(key)
        if process is None:
            kubeconfig = kubeconfig_of(meta["namespace"], meta["name"])
            if kubeconfig is None:
                return {"status": "Success", "message": "the cluster has no kubeconfig, so it never ran"}
            running[key] = teardown(kubeconfig)
            return later("ballast teardown releases the load balancers")
        status = process.poll()
        if status is None:
            return later("ballast teardown releases the load balancers")
        del running[key]
        if status == 0:
            done.add(key)
            return {"status": "Success", "message": "all load balancers are released"}
        # The next call starts it again.
        return later(f"ballast teardown ended with status {status}; see the log of {NAME}")


def discovery(_):
    hook = {"apiVersion": GROUP, "hook": "BeforeClusterDelete"}
    return {
        "status": "Success",
        "handlers": [{"name": NAME, "requestHook": hook, "timeoutSeconds": 10, "failurePolicy": "Fail"}],
    }


HOOKS = {
    f"/{GROUP}/discovery": ("DiscoveryResponse", discovery),
    f"/{GROUP}/beforeclusterdelete/{NAME}": ("BeforeClusterDeleteResponse", before_cluster_delete),
}


class Handler(BaseHTTPRequestHandler):
    timeout = 10

    def do_POST(self):
        path = self.path.split("?")[0]
        size = int(self.headers.get("Content-Length") or 0)
        if path not in HOOKS or size > MAX_BODY:
            return self.send_error(404 if path not in HOOKS else 413)
        kind, hook = HOOKS[path]
        try:
            said = hook(json.loads(self.rfile.read(size) or b"{}"))
        except Exception as error:  # Cluster API calls again.
            print(f"{path}: {error!r}", flush=True)
            said = {"status": "Failure", "message": "see the log of " + NAME}
        body = json.dumps({"apiVersion": GROUP, "kind": kind, **said}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main():
    server = ThreadingHTTPServer(("", int(os.environ.get("PORT", "9443"))), Handler)
    certificates = os.environ.get("CERTIFICATES", "/certificates")
    if certificates:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(f"{certificates}/tls.crt", f"{certificates}/tls.key")
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    print(f"{NAME} listens on port {server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
