"""`spillway get`: the operator's objects in the columns that `kubectl get` shows."""
