// Command envoy-gateway is the benchmarks' peer: Envoy Gateway's own program, built from its published module.
package main

import (
	"context"
	"log"
	"os/signal"
	"syscall"

	"github.com/envoyproxy/gateway/cmd/envoy-gateway/root"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := root.GetRootCommand(nil).ExecuteContext(ctx); err != nil {
		log.Fatal(err)
	}
}
