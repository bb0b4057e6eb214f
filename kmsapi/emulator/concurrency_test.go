package emulator_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/aliyun/alibaba-cloud-sdk-go/services/kms"

	"github.com/kmsbroker/kmsbroker/kmsapi/emulator"
)

// TestConcurrentUse lets SDK clients encrypt while keys beside them change; with
// the race detector it checks that published keys are never written to.
func TestConcurrentUse(t *testing.T) {
	f := start(t, emulator.Config{StateDir: t.TempDir()})
	id, toggled := f.newKey("Aliyun_KMS"), f.newKey("Aliyun_KMS")
	const changes = 6 // by each worker; a key has 20 tags at most
	var wg sync.WaitGroup
	for worker := range 6 {
		client := f.client("cn-hangzhou")
		wg.Go(func() {
			for i := range 20 {
				text := b64(fmt.Sprintf("%d-%d", worker, i))
				enc := kms.CreateEncryptRequest()
				enc.KeyId, enc.Plaintext = id, text
				sealed, err := client.Encrypt(enc)
				if err != nil {
					t.Error(err)
					return
				}
				dec := kms.CreateDecryptRequest()
				dec.CiphertextBlob = sealed.CiphertextBlob
				if opened, err := client.Decrypt(dec); err != nil || opened.Plaintext != text {
					t.Errorf("%v, %v", opened, err)
					return
				}
			}
		})
	}
	for worker := range 3 {
		client := f.client("cn-hangzhou")
		wg.Go(func() {
			for i := range changes {
				disable, enable := kms.CreateDisableKeyRequest(), kms.CreateEnableKeyRequest()
				disable.KeyId, enable.KeyId = toggled, toggled
				if _, err := client.DisableKey(disable); err != nil {
					t.Error(err)
				}
				tag := kms.CreateTagResourceRequest()
				tag.KeyId = toggled
				tag.Tags = fmt.Sprintf(`[{"TagKey":"shared","TagValue":"%[1]d"},{"TagKey":"w%[1]d-%[2]d","TagValue":""}]`, worker, i)
				if _, err := client.TagResource(tag); err != nil {
					t.Error(err)
				}
				tags := kms.CreateListResourceTagsRequest()
				tags.KeyId = toggled
				if _, err := client.ListResourceTags(tags); err != nil {
					t.Error(err)
				}
				if _, err := client.EnableKey(enable); err != nil {
					t.Error(err)
				}
				if _, err := client.CreateKey(kms.CreateCreateKeyRequest()); err != nil {
					t.Error(err)
				}
				if _, err := client.ListKeys(kms.CreateListKeysRequest()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	// No change was lost between two that ran at once.
	if tags := f.ok("ListResourceTags", params{"KeyId": toggled}).list("Tags", "Tag"); len(tags) != 1+3*changes {
		t.Errorf("%d tags, want %d", len(tags), 1+3*changes)
	}
	if n := f.ok("ListKeys", nil).body["TotalCount"]; n != float64(2+3*changes) {
		t.Errorf("%v keys, want %d", n, 2+3*changes)
	}
}
