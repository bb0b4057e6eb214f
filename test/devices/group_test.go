package devices

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/test/hsmsim"
)

// TestGroup: where members are listed beside their group, the group is taken. A
// member that fails costs nobody anything, also a process that begins without it,
// for which all slots have other numbers. When all have failed the token is gone,
// and found again when they are back.
func TestGroup(t *testing.T) {
	d := newDevice(t, hsmsim.LunaHA, hsmsim.Set("ha_only", "0"), hsmsim.Set("failover_ms", "200"))
	b := supervise(t, d, 10*time.Second)
	first := b.ready(t, 0)
	if info := b.Status().Info; info == nil || info.Serial != d.Serial {
		t.Fatalf("the token is %+v, the group has the serial %s", info, d.Serial)
	}
	id := generate(t, b.Token())
	d.MemberDown(1)
	generate(t, b.Token())
	if status := b.Status(); status.Restarts != 0 || status.PID != first {
		t.Errorf("after the loss of a member: %+v", status)
	}
	b.stop()

	b = supervise(t, d, 10*time.Second)
	second := b.ready(t, 0)
	if was, is := d.slotOf(first), d.slotOf(second); was != 2 || is != 1 {
		t.Errorf("the group was opened in slot %d, and after the loss of a member in %d", was, is)
	}
	if _, err := b.Token().Key(t.Context(), id); err != nil {
		t.Errorf("the group without a member: %v", err)
	}

	d.MemberDown(2)
	if _, err := b.Token().GenerateKey(t.Context(), hsm.KeySpec{ID: hsm.NewKeyID(), Label: "x"}); !errors.Is(err, hsm.TokenGone) {
		t.Errorf("without members: %v", err)
	}
	d.MemberUp(1)
	d.MemberUp(2)
	b.ready(t, second)
	if keys, err := b.Token().Keys(t.Context()); err != nil || len(keys) != 2 {
		t.Errorf("after the return of the members: %d keys, %v", len(keys), err)
	}
}

// slotOf is the slot in which a process has opened sessions.
func (d *device) slotOf(pid int) (slot int) {
	slot = -1
	for _, call := range d.Calls() {
		if call.PID == pid && call.Function == "C_OpenSession" {
			slot = int(call.Handle)
		}
	}
	return slot
}

// TestMemberIsRefused although it is there and its serial is configured: the error
// names the group.
func TestMemberIsRefused(t *testing.T) {
	d := newDevice(t, hsmsim.LunaHA, hsmsim.Set("ha_only", "0"))
	for _, serial := range d.MemberSerials {
		_, err := d.with(map[string]string{"token_label": "", "token_serial": serial}).open(t)
		if !errors.Is(err, hsm.Misconfigured) || !strings.Contains(err.Error(), d.Serial) {
			t.Errorf("member %s: %v", serial, err)
		}
	}
	if n := d.Count("C_Login"); n != 0 {
		t.Errorf("%d logins to a member", n)
	}
}
