"""An S3 server of our own for tests: it believes no byte, and misbehaves only on request.

moto accepts wrong checksums and `rclone serve s3` has no conditional writes, so neither can show that
integrity and compare-and-swap work. This one verifies the signature and every digest that a request
carries, decides conditional writes atomically, and pages its listings by two.
"""

from tests.fakes.strict_s3.faults import Deny, Fault, Manners
from tests.fakes.strict_s3.server import StrictServer, strict_server
from tests.fakes.strict_s3.service import Service
from tests.fakes.strict_s3.store import Limits

__all__ = ["Deny", "Fault", "Limits", "Manners", "Service", "StrictServer", "strict_server"]
