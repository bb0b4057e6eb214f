package importer

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/hsm"
)

// automatic leaves the choice of the wrapping algorithm to ChooseAlgorithm.
const automatic = "auto"

// ChooseAlgorithm picks a wrapping algorithm that both the token and the
// service accept. Left to itself it takes the strongest OAEP and never PKCS#1
// v1.5, whose padding lets an attacker who can submit blobs learn the key.
func ChooseAlgorithm(wanted string, token, service []hsm.WrappingAlgorithm) (hsm.WrappingAlgorithm, error) {
	if wanted != automatic {
		algorithm := hsm.WrappingAlgorithm(wanted)
		switch {
		case !algorithm.Valid():
			return "", failure.New(failure.Invalid, "WRAPPING_ALGORITHM", "there is no wrapping algorithm %.60q", wanted).
				WithHint("choose auto or one of %s", list(hsm.WrappingAlgorithms()))
		case slices.Contains(token, algorithm) && slices.Contains(service, algorithm):
			return algorithm, nil
		}
		return "", noAlgorithm(fmt.Sprintf("%s cannot be used", wanted), token, service)
	}
	for _, algorithm := range hsm.WrappingAlgorithms() {
		if algorithm != hsm.PKCS1v15 && slices.Contains(token, algorithm) && slices.Contains(service, algorithm) {
			return algorithm, nil
		}
	}
	return "", noAlgorithm("there is no OAEP algorithm for both ends", token, service)
}

func noAlgorithm(what string, token, service []hsm.WrappingAlgorithm) error {
	return failure.New(failure.WrongState, "WRAPPING_ALGORITHM",
		"%s: the HSM token does %s, the KMS endpoint accepts %s", what, list(token), list(service)).
		WithHint("newer HSM firmware or library may do more; RSAES_PKCS1_V1_5 must be asked for by name")
}

func list(algorithms []hsm.WrappingAlgorithm) string {
	if len(algorithms) == 0 {
		return "none"
	}
	names := make([]string, len(algorithms))
	for i, a := range algorithms {
		names[i] = string(a)
	}
	return strings.Join(names, ", ")
}
