"""A real Kubernetes for the tests, brought up by the project itself: no Docker, no registry, no systemd.

`python -m e2e.cluster up` builds what is missing (`tools`, `debian`: kept in the user's cache folder, so that a fresh clone
finds it again), makes certificates (`pki`), and starts a *keeper* (`keeper`): one process that owns every program of the
cluster and takes all of them along when it ends, however it ends. Two tiers:

- `control-plane` (`control_plane`): etcd, kube-apiserver, kube-controller-manager and kube-scheduler on 127.0.0.1, free
  ports. Any user can run it. Pods are objects only.
- `node` (`node`): those, and containerd, kubelet, kube-proxy and CoreDNS, in mount, PID and network namespaces of their own.
  Needs root on Linux. Pods are real; the machine reaches their addresses by a veth pair (`network`).

Everything a cluster writes lies in its state folder (`layout`), which `down` removes.
"""
