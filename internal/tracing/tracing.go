// Package tracing marks what happens within a call that is traced: the door begins a
// trace, if the daemon is configured to make any, and whoever works on the call begins a
// span where something takes time or goes elsewhere. Without a trace it costs a look into
// the context. Spans say what is done and to which key, never with what.
package tracing

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// Scope names these spans' origin.
const Scope = "github.com/kmsbroker/kmsbroker"

// Names of attributes.
const (
	Key      = "kmsbroker.key"
	Region   = "kmsbroker.region"
	Endpoint = "kmsbroker.endpoint"
)

// Start begins a span within the trace of ctx, with names and values of attributes. What
// it returns ends the span with the error of what was done.
func Start(ctx context.Context, name string, attributes ...string) (context.Context, func(error)) {
	parent := trace.SpanFromContext(ctx)
	if !parent.IsRecording() {
		return ctx, func(error) {}
	}
	ctx, span := parent.TracerProvider().Tracer(Scope).Start(ctx, name, trace.WithAttributes(pairs(attributes)...))
	return ctx, func(err error) { End(span, err) }
}

// End ends a span with an error, nil for none.
func End(span trace.Span, err error) {
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}

func pairs(attributes []string) []attribute.KeyValue {
	var all []attribute.KeyValue
	for i := 0; i+1 < len(attributes); i += 2 {
		all = append(all, attribute.String(attributes[i], attributes[i+1]))
	}
	return all
}
