package main

// hints tells failures on the way to the service from failures of the HSM, as
// far as the codes allow. Thales does not document which code stands for an
// expired JWT or an identity service that is away; the words say so.
func hints() map[string]string {
	const (
		way = "this looks like the way to the service and not the HSM: check the identity and token service, " +
			"DNS and port 443 of the service's host, the clock, the host's CA certificates and that the service's credentials were not revoked"
		either = "either the HSM or the way to it failed: the identity and token service and the REST gateway answer with the same code"
	)
	return map[string]string{
		"CKR_UNABLE_TO_CONNECT":   way,
		"CKR_CALLBACK_ERROR":      way,
		"CKR_TIMEOUT":             way,
		"CKR_DEVICE_TIMEOUT":      way,
		"CKR_STC_SESSION_INVALID": "the secure channel (XTC) to the partition was lost: check the partition's certificates and the clock",
		"CKR_STC_NO_CHANNEL":      "the secure channel (XTC) to the partition was lost: check the partition's certificates and the clock",
		"CKR_TOKEN_NOT_PRESENT":   "the service was deleted or is out of reach for the moment",
		"CKR_DEVICE_ERROR":        either,
		"CKR_GENERAL_ERROR":       either,
		"CKR_FUNCTION_FAILED":     either,
	}
}
