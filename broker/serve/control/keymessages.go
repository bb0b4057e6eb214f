package control

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/broker"
	"github.com/kmsbroker/kmsbroker/broker/importer"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
)

// reporter sends the progress of an import down its stream. A stream that broke
// has a context that ended, which stops the import; the error says nothing new.
func reporter(stream importStream) func(importer.Progress) {
	return func(p importer.Progress) {
		_ = stream.Send(&v1.ImportEvent{Event: &v1.ImportEvent_Step_{Step: stepMessage(p)}})
	}
}

func stepMessage(p importer.Progress) *v1.ImportEvent_Step {
	states := map[importer.StepState]v1.ImportEvent_State{
		importer.Started: v1.ImportEvent_STATE_STARTED,
		importer.Done:    v1.ImportEvent_STATE_DONE,
		importer.Skipped: v1.ImportEvent_STATE_SKIPPED,
		importer.Failed:  v1.ImportEvent_STATE_FAILED,
		importer.Planned: v1.ImportEvent_STATE_PLANNED,
	}
	step := &v1.ImportEvent_Step{Name: p.Step, Region: p.Region, State: states[p.State], Detail: p.Detail}
	if p.State == importer.Done || p.State == importer.Failed {
		step.Elapsed = durationpb.New(p.Elapsed)
	}
	return step
}

func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func keyMessage(k *keyring.Key) *v1.Key {
	cmk := k.Current()
	m := &v1.Key{
		Name: k.Name, KeyId: cmk.KeyID, Arn: cmk.ARN, Region: cmk.Region, State: string(cmk.State),
		Backend: k.Backend, HsmKeyId: string(cmk.HSMKeyID), CheckValue: cmk.CheckValue,
		WrappingAlgorithm: string(cmk.WrappingAlgorithm), MaterialExpiresAt: timestamp(cmk.MaterialExpiresAt),
		Alias: k.Alias, CreatedAt: timestamp(k.CreatedAt), Description: k.Description,
	}
	if k.Renewal.Ahead > 0 {
		m.RenewAhead = durationpb.New(k.Renewal.Ahead)
	}
	for i := range k.CMKs {
		m.Cmks = append(m.Cmks, cmkMessage(k, &k.CMKs[i]))
	}
	return m
}

func cmkMessage(k *keyring.Key, cmk *keyring.CMK) *v1.CMK {
	current, _ := k.CurrentIn(cmk.Region)
	return &v1.CMK{
		KeyId: cmk.KeyID, Arn: cmk.ARN, Region: cmk.Region, State: string(cmk.State), Current: current.KeyID == cmk.KeyID,
		HsmKeyId: string(cmk.HSMKeyID), CheckValue: cmk.CheckValue, WrappingAlgorithm: string(cmk.WrappingAlgorithm),
		MaterialExpiresAt: timestamp(cmk.MaterialExpiresAt), CreatedAt: timestamp(cmk.CreatedAt),
		RenewedAt: timestamp(cmk.Renewed.At), RenewalError: cmk.Renewed.Error, Sealed: !cmk.SealedAt.IsZero(),
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
	m := &v1.UnfinishedImport{
		Name: imp.Name, Kind: importer.Verb(imp.Kind), Backend: imp.Plan.Backend, LastStep: imp.LastStep(),
		StartedAt: timestamp(imp.StartedAt), HsmKeyId: string(imp.HSMKeyID), KeyIds: imp.KeyIDs(),
	}
	if len(m.KeyIds) > 0 {
		m.KeyId = m.KeyIds[0]
	}
	for _, r := range imp.Regions {
		if !r.Finished {
			m.Regions = append(m.Regions, r.Region)
		}
	}
	return m
}

func detailMessage(d broker.Detail) *v1.KeyDetailsResponse_Detail {
	m := &v1.KeyDetailsResponse_Detail{
		Region: d.Region, KeyId: d.Metadata.KeyID, Arn: d.Metadata.ARN, State: string(d.Metadata.State),
		Origin: d.Metadata.Origin, Spec: d.Metadata.Spec, Usage: d.Metadata.Usage, ProtectionLevel: d.Metadata.ProtectionLevel,
		Description: d.Metadata.Description, Creator: d.Metadata.Creator, CreatedAt: timestamp(d.Metadata.CreatedAt),
		DeleteAt: timestamp(d.Metadata.DeleteAt), MaterialExpiresAt: timestamp(d.Metadata.MaterialExpireTime),
		DeletionProtection: d.Metadata.DeletionProtection, InstanceId: d.Metadata.InstanceID, Tags: map[string]string{},
	}
	for _, tag := range d.Tags {
		m.Tags[tag.Key] = tag.Value
	}
	return m
}
