package ram

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/aliyun/alibaba-cloud-sdk-go/services/ram"

	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// policyFor is a document of its own for each n.
func policyFor(t *testing.T, n int) string {
	t.Helper()
	text, err := Grant{Keys: []Key{{ARN: fmt.Sprintf("acs:kms:cn-hangzhou:1000000000000001:key/%d", n)}}}.Document()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestProvisionConverges(t *testing.T) {
	a, ctx := newAccount(t), t.Context()
	var b box
	first, err := a.Provision(ctx, "app", policyFor(t, 1), "", b.deliver)
	if err != nil || len(first.Changes) != 4 || first.AccessKeyID != b.key.AccessKeyID || first.PolicyVersion != "v1" {
		t.Fatalf("%+v, %v", first, err)
	}
	if err := Probe(ctx, a.url, nil, b.key); err != nil {
		t.Errorf("the new key: %v", err)
	}
	again, err := a.Provision(ctx, "app", policyFor(t, 1), first.AccessKeyID, nil)
	if err != nil || len(again.Changes) != 0 || again.PolicyVersion != "v1" {
		t.Errorf("second run: %+v, %v", again, err)
	}
	for n := 2; n <= 12; n++ {
		p, err := a.Provision(ctx, "app", policyFor(t, n), first.AccessKeyID, nil)
		if err != nil || p.PolicyVersion != fmt.Sprintf("v%d", n) {
			t.Fatalf("change %d: %+v, %v", n, p, err)
		}
	}
	versions, err := a.policyVersions(ctx, PolicyName("app"))
	if err != nil || len(versions) != maxVersions || versions[0].id != "v8" || !versions[4].isDefault {
		t.Errorf("versions %+v, %v", versions, err)
	}
	there, err := a.policy(ctx, PolicyName("app"))
	if err != nil || !sameJSON(there.document, policyFor(t, 12)) {
		t.Errorf("policy %+v, %v", there, err)
	}
}

// TestProvisionResumes: whatever step fails, the next run finishes.
func TestProvisionResumes(t *testing.T) {
	for _, action := range []string{"CreateUser", "CreatePolicy", "AttachPolicyToUser"} {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprint(action, after), func(t *testing.T) {
				a := newAccount(t)
				a.interfere(func(w http.ResponseWriter, now string, done bool) bool {
					if now != action || done != after {
						return false
					}
					w.WriteHeader(http.StatusBadGateway)
					return true
				})
				var b box
				if _, err := a.Provision(t.Context(), "app", policyFor(t, 1), "", b.deliver); err == nil {
					t.Fatal("no failure")
				}
				a.interfere(nil)
				p, err := a.Provision(t.Context(), "app", policyFor(t, 1), "", b.deliver)
				if err != nil || p.AccessKeyID == "" {
					t.Errorf("%+v, %v", p, err)
				}
			})
		}
	}
}

func TestProvisionLeavesOthersAlone(t *testing.T) {
	a, ctx := newAccount(t), t.Context()
	if err := a.createUser(ctx, "alice", "a person"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.createPolicy(ctx, PolicyName("app"), "somebody's", policyFor(t, 1)); err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"alice", "app", "a.b", ""} {
		if _, err := a.Provision(ctx, user, policyFor(t, 2), "", (&box{}).deliver); err == nil {
			t.Errorf("user %q was provisioned", user)
		}
	}
	if keys, err := a.listKeys(ctx, "alice"); err != nil || len(keys) > 0 {
		t.Errorf("alice has %v, %v", keys, err)
	}
	if err := a.CheckRevocable(ctx, "alice"); err == nil {
		t.Error("alice could be revoked")
	}
	if _, err := a.Revoke(ctx, "alice"); err == nil {
		t.Error("alice was revoked")
	}
}

func TestOtherPoliciesAreReported(t *testing.T) {
	a, ctx := newAccount(t), t.Context()
	var b box
	if _, err := a.Provision(ctx, "app", policyFor(t, 1), "", b.deliver); err != nil {
		t.Fatal(err)
	}
	req := ram.CreateAttachPolicyToUserRequest()
	req.PolicyType, req.PolicyName, req.UserName = "System", "AliyunKMSFullAccess", "app"
	if err := a.rpc.Do(ctx, req, ram.CreateAttachPolicyToUserResponse()); err != nil {
		t.Fatal(err)
	}
	p, err := a.Provision(ctx, "app", policyFor(t, 1), b.key.AccessKeyID, nil)
	if err != nil || !slices.Equal(p.OtherPolicies, []string{"System/AliyunKMSFullAccess"}) {
		t.Errorf("%+v, %v", p, err)
	}
	// Revoking kills the key first, and then says what keeps the user.
	r, err := a.Revoke(ctx, "app")
	if err == nil || !strings.Contains(err.Error(), "DeleteConflict.User.Policy") || len(r.AccessKeys) != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	if keys, err := a.listKeys(ctx, "app"); err != nil || len(keys) > 0 {
		t.Errorf("keys %v, %v", keys, err)
	}
}

func TestPresentKey(t *testing.T) {
	a, ctx := newAccount(t), t.Context()
	var b box
	if _, err := a.Provision(ctx, "app", policyFor(t, 1), "", b.deliver); err != nil {
		t.Fatal(err)
	}
	for present, says := range map[string]string{"": "has access key " + b.key.AccessKeyID + " already", "LTAIother": "does not have"} {
		if _, err := a.Provision(ctx, "app", policyFor(t, 2), present, b.deliver); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", present, err)
		}
	}
	if err := a.deactivateKey(ctx, "app", b.key.AccessKeyID); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Provision(ctx, "app", policyFor(t, 2), b.key.AccessKeyID, nil); err == nil || !strings.Contains(err.Error(), "is inactive") {
		t.Errorf("inactive: %v", err)
	}
	if there, err := a.policy(ctx, PolicyName("app")); err != nil || there.version != "v1" {
		t.Errorf("the policy was changed before the refusal: %+v, %v", there, err)
	}
}

func TestUndeliveredKeyIsDeleted(t *testing.T) {
	a, ctx := newAccount(t), t.Context()
	full := errors.New("disk full")
	b := box{fails: full}
	_, err := a.Provision(ctx, "app", policyFor(t, 1), "", b.deliver)
	if !errors.Is(err, full) || strings.Contains(err.Error(), b.key.AccessKeySecret) {
		t.Errorf("got %v", err)
	}
	if keys, err := a.listKeys(ctx, "app"); err != nil || len(keys) > 0 {
		t.Errorf("left over: %v, %v", keys, err)
	}
	a.interfere(func(w http.ResponseWriter, action string, _ bool) bool {
		if action != "DeleteAccessKey" {
			return false
		}
		fail(w, http.StatusForbidden, "NoPermission")
		return true
	})
	_, err = a.Provision(ctx, "app", policyFor(t, 1), "", b.deliver)
	if !errors.Is(err, full) || !strings.Contains(err.Error(), "access key "+b.key.AccessKeyID+" of user app is lost") {
		t.Errorf("got %v", err)
	}
}

// TestInterruptedDelivery: the key is deleted also when nobody waits any more.
func TestInterruptedDelivery(t *testing.T) {
	a := newAccount(t)
	ctx, interrupt := context.WithCancel(t.Context())
	_, err := a.Provision(ctx, "app", policyFor(t, 1), "", func(ctx context.Context, _ kmsapi.Credentials) error {
		interrupt()
		return ctx.Err()
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if keys, err := a.listKeys(t.Context(), "app"); err != nil || len(keys) > 0 {
		t.Errorf("left over: %v, %v", keys, err)
	}
}

// TestLostKey: CreateAccessKey is made once, and what became of it is found out.
func TestLostKey(t *testing.T) {
	for _, after := range []bool{true, false} {
		t.Run(fmt.Sprint("made ", after), func(t *testing.T) {
			a, ctx := newAccount(t), t.Context()
			calls := 0
			a.interfere(func(w http.ResponseWriter, action string, done bool) bool {
				if action != "CreateAccessKey" {
					return false
				}
				if done == after {
					calls++
					w.WriteHeader(http.StatusBadGateway)
				}
				return done == after
			})
			_, err := a.Provision(ctx, "app", policyFor(t, 1), "", (&box{}).deliver)
			keys, listErr := a.listKeys(ctx, "app")
			if listErr != nil || (len(keys) == 1) != after || calls != 1 {
				t.Fatalf("keys %v after %d calls, %v", keys, calls, listErr)
			}
			want := "no access key was made"
			if after {
				want = "access key " + keys[0].ID + " appeared meanwhile and its secret is lost"
			}
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
		})
	}
}

func TestRefusedAdministrator(t *testing.T) {
	a := newAccount(t)
	var b box
	if _, err := a.Provision(t.Context(), "app", policyFor(t, 1), "", b.deliver); err != nil {
		t.Fatal(err)
	}
	_, err := a.as(t, b.key).Provision(t.Context(), "app2", policyFor(t, 1), "", (&box{}).deliver)
	if !Denied(err) || NotFound(err) {
		t.Errorf("got %v", err)
	}
	if _, err := a.Revoke(t.Context(), "nobody"); !NotFound(err) || Denied(err) {
		t.Errorf("got %v", err)
	}
	wrong := kmsapi.Credentials{AccessKeyID: rootID, AccessKeySecret: "wrong-secret"}
	if _, err := a.as(t, wrong).AccessKeys(t.Context(), "app"); err == nil || strings.Contains(err.Error(), "wrong-secret") {
		t.Errorf("got %v", err)
	}
}
