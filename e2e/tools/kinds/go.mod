// The CRDs of others, whose kinds the chart can make: read out of their modules and held against what it makes. Nothing is built.
module spillway/e2e/tools/kinds

go 1.26

require (
	github.com/cert-manager/cert-manager v1.19.1
	github.com/prometheus-operator/prometheus-operator v0.85.0
)
