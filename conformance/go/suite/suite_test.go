// Package suite makes the official Gateway API conformance suite one test binary.
package suite

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
)

// TestConformance runs every test that the suite's own flags select.
func TestConformance(t *testing.T) {
	conformance.RunConformance(t)
}
