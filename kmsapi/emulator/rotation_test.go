package emulator_test

import (
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi/emulator"
)

func TestRotation(t *testing.T) {
	dir := t.TempDir()
	clock := newClock()
	const day = 24 * time.Hour
	var id, first, second string
	blobs := map[string]string{} // by version
	t.Run("before", func(t *testing.T) {
		f := start(t, emulator.Config{StateDir: dir, Clock: clock.Now})
		id = f.ok("CreateKey", params{"EnableAutomaticRotation": "true", "RotationInterval": "604800s"}).text("KeyMetadata", "KeyId")
		meta := f.ok("DescribeKey", params{"KeyId": id})
		if meta.text("KeyMetadata", "AutomaticRotation") != "Enabled" || meta.text("KeyMetadata", "RotationInterval") != "604800s" ||
			meta.text("KeyMetadata", "NextRotationDate") != clock.Now().Add(7*day).Format(timeLayout) {
			t.Errorf("created %v", meta.body)
		}
		first = meta.text("KeyMetadata", "PrimaryKeyVersion")
		blobs[first] = f.encrypt(id, "first")
		clock.advance(7*day - time.Second)
		if got := f.primary(id); got != first {
			t.Error("rotated too early")
		}
		clock.advance(time.Second)
		second = f.primary(id)
		blobs[second] = f.encrypt(id, "second")
		if second == first {
			t.Error("did not rotate")
		}
		if meta := f.ok("DescribeKey", params{"KeyId": id}); meta.text("KeyMetadata", "LastRotationDate") != clock.Now().Format(timeLayout) {
			t.Errorf("rotated %v", meta.body)
		}

		f.ok("DisableKey", params{"KeyId": id})
		if got := f.ok("DescribeKey", params{"KeyId": id}).text("KeyMetadata", "AutomaticRotation"); got != "Suspended" {
			t.Errorf("AutomaticRotation of a disabled key is %s", got)
		}
		clock.advance(30 * day)
		if got := f.primary(id); got != second {
			t.Error("a disabled key rotated")
		}
		f.ok("EnableKey", params{"KeyId": id})
	})
	t.Run("after", func(t *testing.T) {
		f := start(t, emulator.Config{StateDir: dir, Clock: clock.Now})
		if versions := f.ok("ListKeyVersions", params{"KeyId": id}).list("KeyVersions", "KeyVersion"); len(versions) != 3 {
			t.Errorf("versions %v", versions)
		}
		for version, blob := range blobs {
			opened := f.ok("Decrypt", params{"CiphertextBlob": blob})
			if want := map[string]string{first: "first", second: "second"}[version]; opened.text("Plaintext") != b64(want) || opened.text("KeyVersionId") != version {
				t.Errorf("version %s opened %v", version, opened.body)
			}
		}
		if moved := f.ok("ReEncrypt", params{"CiphertextBlob": blobs[first], "DestinationKeyId": id}); moved.text("KeyVersionId") != f.primary(id) {
			t.Errorf("re-encrypted under %v", moved.body)
		}
		f.ok("UpdateRotationPolicy", params{"KeyId": id, "EnableAutomaticRotation": "false"})
		meta := f.ok("DescribeKey", params{"KeyId": id})
		if _, there := meta.body["KeyMetadata"].(map[string]any)["NextRotationDate"]; there || meta.text("KeyMetadata", "AutomaticRotation") != "Disabled" {
			t.Errorf("without rotation %v", meta.body)
		}
		f.ok("ScheduleKeyDeletion", params{"KeyId": id, "PendingWindowInDays": "7"})
		clock.advance(7 * day)
		f.refused(400, "InvalidParameter", "Decrypt", params{"CiphertextBlob": blobs[first]})
	})
}

// primary is the version that a key encrypts under.
func (f *fixture) primary(id string) string {
	f.t.Helper()
	return f.ok("DescribeKey", params{"KeyId": id}).text("KeyMetadata", "PrimaryKeyVersion")
}

func TestRotationParameters(t *testing.T) {
	f := start(t, emulator.Config{})
	own, external := f.newKey("Aliyun_KMS"), f.newKey("EXTERNAL")
	f.ok("ImportKeyMaterial", f.wrapped(external, "RSAES_OAEP_SHA_256", wrapOAEP256, material(32)))
	on := func(id, interval string) params {
		return params{"KeyId": id, "EnableAutomaticRotation": "true", "RotationInterval": interval}
	}
	for _, interval := range []string{"6d", "366d", "d", "7", "7w", "-7d", "167h", "99999999999999999999s"} {
		f.refused(400, "InvalidParameter", "UpdateRotationPolicy", on(own, interval))
	}
	f.refused(400, "MissingParameter", "UpdateRotationPolicy", on(own, ""))
	f.refused(400, "UnsupportedOperation", "UpdateRotationPolicy", on(external, "365d"))
	f.refused(400, "UnsupportedOperation", "CreateKeyVersion", params{"KeyId": own})
	f.refused(400, "UnsupportedOperation", "CreateKey", params{"Origin": "EXTERNAL", "EnableAutomaticRotation": "true", "RotationInterval": "365d"})
	for _, interval := range []string{"7d", "168h", "10080m", "604800s", "365d"} {
		f.ok("UpdateRotationPolicy", on(own, interval))
	}
}
