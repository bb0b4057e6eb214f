package main

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/kmsbroker/kmsbroker/broker/config"
	"github.com/kmsbroker/kmsbroker/internal/build"
	"github.com/kmsbroker/kmsbroker/internal/tracing"
)

// tracesPath is where OTLP takes traces.
const tracesPath = "/v1/traces"

// flushTime is how long the last spans may take when the daemon stops.
const flushTime = 3 * time.Second

// openTracing returns nil where nothing is traced.
func openTracing(ctx context.Context, cfg config.Tracing, log *slog.Logger) (tracer trace.Tracer, flush func(), err error) {
	if cfg.Endpoint == "" {
		return nil, func() {}, nil
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(strings.TrimSuffix(cfg.Endpoint, "/")+tracesPath))
	if err != nil {
		return nil, nil, err
	}
	// The SDK has no other way to tell that spans are lost.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("traces are lost", "error", err) }))
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter),
		sdktrace.WithSampler(sdktrace.TraceIDRatioBased(1/float64(cfg.OneIn))),
		sdktrace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "kmsbrokerd"), attribute.String("service.version", build.Version()))))
	flush = func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTime)
		defer cancel()
		if err := provider.Shutdown(ctx); err != nil {
			log.Warn("traces are lost", "error", err)
		}
	}
	return provider.Tracer(tracing.Scope), flush, nil
}
