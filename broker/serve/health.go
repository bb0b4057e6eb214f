package serve

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// healthInterval is how soon who watches hears of a change.
const healthInterval = time.Second

// Health is grpc.health.v1.Health for a door: it answers whether calls would be.
type Health struct {
	grpc_health_v1.UnimplementedHealthServer
	// Services are the names that can be asked for, next to "" for all.
	Services []string
	Serving  func() bool
}

// Check implements grpc_health_v1.HealthServer.
func (h *Health) Check(_ context.Context, req *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	if !h.knows(req.GetService()) {
		return nil, status.Error(codes.NotFound, "there is no such service here")
	}
	return &grpc_health_v1.HealthCheckResponse{Status: h.status()}, nil
}

// List implements grpc_health_v1.HealthServer.
func (h *Health) List(context.Context, *grpc_health_v1.HealthListRequest) (*grpc_health_v1.HealthListResponse, error) {
	statuses := map[string]*grpc_health_v1.HealthCheckResponse{}
	for _, name := range append([]string{""}, h.Services...) {
		statuses[name] = &grpc_health_v1.HealthCheckResponse{Status: h.status()}
	}
	return &grpc_health_v1.HealthListResponse{Statuses: statuses}, nil
}

// Watch implements grpc_health_v1.HealthServer.
func (h *Health) Watch(req *grpc_health_v1.HealthCheckRequest, stream grpc.ServerStreamingServer[grpc_health_v1.HealthCheckResponse]) error {
	ticker := time.NewTicker(healthInterval)
	defer ticker.Stop()
	last := grpc_health_v1.HealthCheckResponse_UNKNOWN
	for {
		now := grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN
		if h.knows(req.GetService()) {
			now = h.status()
		}
		if now != last {
			if err := stream.Send(&grpc_health_v1.HealthCheckResponse{Status: now}); err != nil {
				return err
			}
			last = now
		}
		select {
		case <-ticker.C:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func (h *Health) knows(service string) bool {
	return service == "" || slices.Contains(h.Services, service)
}

func (h *Health) status() grpc_health_v1.HealthCheckResponse_ServingStatus {
	if h.Serving() {
		return grpc_health_v1.HealthCheckResponse_SERVING
	}
	return grpc_health_v1.HealthCheckResponse_NOT_SERVING
}
