package envelope

import "testing"

// BenchmarkMessage is what the daemon does for a message of 1 KiB besides policy and
// audit.
func BenchmarkMessage(b *testing.B) {
	plaintext, keys := make([]byte, 1<<10), wrapped("cn-hangzhou")
	b.ReportAllocs()
	for b.Loop() {
		m, err := New("payments", keys, dataKey(), tenant)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := m.Seal(plaintext); err != nil {
			b.Fatal(err)
		}
	}
}
