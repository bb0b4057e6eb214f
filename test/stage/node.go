package stage

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// InstallNode copies a folder of Node.js programs and installs what they need next
// to them, as their lock file has it with hashes. It returns where.
func InstallNode(t testing.TB, folder string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(folder)); err != nil {
		t.Fatal(err)
	}
	// What somebody has installed in the folder is not it.
	if err := os.RemoveAll(filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	install := exec.CommandContext(t.Context(), "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
	install.Dir = dir
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
	return dir
}
