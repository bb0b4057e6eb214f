package authz

import "testing"

func TestPolicy(t *testing.T) {
	policy := NewPolicy([]Grant{
		{Keys: []string{"payments"}, Operations: []Operation{Encrypt, Decrypt}, UIDs: []uint32{1000}},
		{Keys: []string{"logs-*"}, Operations: []Operation{Encrypt}, GIDs: []uint32{50}},
		{Keys: []string{"[broken"}, Operations: []Operation{Encrypt}, UIDs: []uint32{1000}},
	})
	alice := Caller{UID: 1000, GID: 1000}
	logger := Caller{UID: 2000, GID: 50}
	root := Caller{}
	tests := []struct {
		name   string
		caller Caller
		op     Operation
		key    string
		want   bool
	}{
		{"granted by uid", alice, Decrypt, "payments", true},
		{"other operation", alice, GenerateDataKey, "payments", false},
		{"other key", alice, Decrypt, "payments2", false},
		{"granted by gid and glob", logger, Encrypt, "logs-web", true},
		{"glob does not cross its prefix", logger, Encrypt, "log", false},
		{"gid grants nothing more", logger, Decrypt, "logs-web", false},
		{"uid is not compared with gids", Caller{UID: 50, GID: 9}, Encrypt, "logs-web", false},
		{"gid is not compared with uids", Caller{UID: 9, GID: 1000}, Encrypt, "payments", false},
		{"root is nobody special", root, Encrypt, "payments", false},
		{"a malformed pattern matches nothing", alice, Encrypt, "[broken", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := policy.Allows(tt.caller, tt.op, tt.key); got != tt.want {
				t.Errorf("Allows(%v, %s, %s) = %v, want %v", tt.caller, tt.op, tt.key, got, tt.want)
			}
		})
	}
	if NewPolicy(nil).Allows(alice, Encrypt, "payments") {
		t.Error("a policy without grants allows something")
	}
}
