package config

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestDocument: docs/configuration.md has every key that a file can have. The good
// file of the tests has all but those named here.
func TestDocument(t *testing.T) {
	document, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]bool{}
	for _, word := range []string{"ecs_role", "oidc", "role", "sts_endpoint", "reads", "writes", "metadata", "provider_arn", "token_file", "external_id", "session_name", "session_duration", "role_arn"} {
		keys[word] = true
	}
	for _, match := range regexp.MustCompile(`(?m)(?:^|\{ |, )([a-z_0-9]+) *= `).FindAllStringSubmatch(string(readTestdata(t, "good.toml")), -1) {
		keys[match[1]] = true
	}
	for _, free := range []string{"tenant", "purpose", "app", "token_label"} { // of contexts and settings
		delete(keys, free)
	}
	if len(keys) < 50 {
		t.Errorf("only %d keys were found", len(keys))
	}
	for key := range keys {
		if !strings.Contains(string(document), "`"+key+"`") {
			t.Errorf("docs/configuration.md lacks %s", key)
		}
	}
}
