package control

import (
	"strings"
	"time"
	"unicode"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/broker"
	"github.com/kmsbroker/kmsbroker/broker/backend"
	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/importer"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
)

// reporter sends the progress of an import down its stream. A stream that broke
// has a context that ended, which stops the import; the error says nothing new.
func reporter(stream grpc.ServerStreamingServer[v1.ImportEvent]) func(importer.Progress) {
	states := map[importer.StepState]v1.ImportEvent_State{
		importer.Started: v1.ImportEvent_STATE_STARTED,
		importer.Done:    v1.ImportEvent_STATE_DONE,
		importer.Skipped: v1.ImportEvent_STATE_SKIPPED,
		importer.Failed:  v1.ImportEvent_STATE_FAILED,
	}
	return func(p importer.Progress) {
		step := &v1.ImportEvent_Step{Name: p.Step, State: states[p.State], Detail: p.Detail}
		if p.State == importer.Done || p.State == importer.Failed {
			step.Elapsed = durationpb.New(p.Elapsed)
		}
		_ = stream.Send(&v1.ImportEvent{Event: &v1.ImportEvent_Step_{Step: step}})
	}
}

func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func keyMessage(k *keyring.Key) *v1.Key {
	cmk := k.Current()
	return &v1.Key{
		Name: k.Name, KeyId: cmk.KeyID, Arn: cmk.ARN, Region: cmk.Region, State: string(cmk.State),
		Backend: k.Backend, HsmKeyId: string(cmk.HSMKeyID), CheckValue: cmk.CheckValue,
		WrappingAlgorithm: string(cmk.WrappingAlgorithm), MaterialExpiresAt: timestamp(cmk.MaterialExpiresAt),
		Alias: k.Alias, CreatedAt: timestamp(k.CreatedAt), Description: k.Description,
	}
}

func importMessages(imports []*keyring.Import) []*v1.UnfinishedImport {
	messages := make([]*v1.UnfinishedImport, len(imports))
	for i, imp := range imports {
		messages[i] = importMessage(imp)
	}
	return messages
}

func importMessage(imp *keyring.Import) *v1.UnfinishedImport {
	return &v1.UnfinishedImport{
		Name: imp.Name, Backend: imp.Plan.Backend, LastStep: imp.LastStep(), KeyId: imp.KeyID,
		StartedAt: timestamp(imp.StartedAt), HsmKeyId: string(imp.HSMKeyID),
	}
}

func backendMessages(all []backend.Status) []*v1.Backend {
	messages := make([]*v1.Backend, len(all))
	for i, s := range all {
		messages[i] = backendMessage(s)
	}
	return messages
}

func backendMessage(s backend.Status) *v1.Backend {
	m := &v1.Backend{
		Name: s.Name, Plugin: s.Plugin, State: string(s.State), Restarts: uint32(s.Restarts), Pid: int32(s.PID),
		AllowForeignEndpoint: s.AllowForeignEndpoint,
	}
	if s.Err != nil {
		m.Error = s.Err.Error()
	}
	if info := s.Info; info != nil {
		m.Token = &v1.Backend_Token{
			Manufacturer: info.Manufacturer, Model: info.Model, Serial: info.Serial, Label: info.Label,
			Firmware: info.Firmware, Library: info.Library, Role: string(info.Role), Fips: info.FIPS,
			MaxSessions: uint32(info.MaxSessions),
		}
		for _, a := range info.WrappingAlgorithms {
			m.Token.WrappingAlgorithms = append(m.Token.WrappingAlgorithms, string(a))
		}
	}
	return m
}

// checkRequest reads how a backend shall be checked.
func checkRequest(req *v1.CheckBackendRequest) (backend.CheckRequest, error) {
	asked := backend.CheckRequest{Destructive: req.GetDestructive()}
	client := req.GetClient()
	const longest = 64
	if len(client) > longest || strings.ContainsFunc(client, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return asked, failure.New(failure.Invalid, "CLIENT", "the name of the client is longer than %d bytes or cannot be printed", longest)
	}
	if client != "" {
		asked.RunBy = []string{client}
	}
	return asked, nil
}

func backendKeyMessage(k broker.BackendKey) *v1.BackendKey {
	return &v1.BackendKey{
		Id: string(k.ID), Label: k.Label, Type: k.Type, Bits: uint32(k.Bits),
		Sensitive: k.Sensitive, Extractable: k.Extractable, Local: k.Local, Key: k.Name,
	}
}

func statusMessage(s broker.Status) *v1.StatusResponse {
	m := &v1.StatusResponse{
		Version: s.Version, StartedAt: timestamp(s.StartedAt), InstanceId: s.InstanceID,
		Endpoint: &v1.StatusResponse_Endpoint{Url: s.URL, Region: s.Region, Genuine: s.Genuine},
		Backends: backendMessages(s.Backends), Keys: uint32(s.Keys), Unfinished: importMessages(s.Unfinished),
		Audit: &v1.StatusResponse_Audit{Records: s.AuditSeq, Head: s.AuditHead},
	}
	if s.AuditErr != nil {
		m.Audit.Error = s.AuditErr.Error()
	}
	return m
}
