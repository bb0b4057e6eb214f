// Package bench measures the broker beside what it is compared with, in turns in
// one run, so that a busy machine slows both. Ratios travel; times do not.
package bench

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	rounds = 7
	turn   = 700 * time.Millisecond
)

// side is one of two ways to do the same.
type side struct {
	name string
	do   func(context.Context) error
}

// compare runs all sides in turns and reports the median throughput of each, and
// the median of the ratios to theirs, round by round: ours as "ratio", those of
// others, which are there to judge it by, under their names.
func compare(b *testing.B, callers int, theirs, ours side, others ...side) {
	b.Helper()
	sides := append([]side{theirs, ours}, others...)
	rates, ratios := make([][]float64, len(sides)), make([][]float64, len(sides))
	for _, s := range sides {
		rate(b, callers, s) // warm up
	}
	for range rounds {
		for i, s := range sides {
			rates[i] = append(rates[i], rate(b, callers, s))
			ratios[i] = append(ratios[i], last(rates[i])/last(rates[0]))
		}
	}
	for i, s := range sides {
		b.ReportMetric(median(rates[i]), s.name+"/s")
		switch i {
		case 0:
		case 1:
			b.ReportMetric(median(ratios[i]), "ratio")
		default:
			b.ReportMetric(median(ratios[i]), s.name+"-ratio")
		}
	}
	b.ReportMetric(0, "ns/op")
}

func last(v []float64) float64 { return v[len(v)-1] }

func rate(b *testing.B, callers int, s side) float64 {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	var calls atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	start := time.Now()
	for range callers {
		wg.Go(func() {
			for time.Since(start) < turn {
				if err := s.do(ctx); err != nil {
					failed.Store(&err)
					return
				}
				calls.Add(1)
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		b.Fatalf("%s: %v", s.name, *err)
	}
	return float64(calls.Load()) / time.Since(start).Seconds()
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}
