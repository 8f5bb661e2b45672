"""Licences are named by SPDX expressions."""

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from adapters.errors import InvalidLicence


def check_licence(expression: str) -> str:
    """The expression in SPDX's own capitals ("cc-by-4.0" gives "CC-BY-4.0"); LicenseRef-* names are allowed.

    Raises InvalidLicence for what is not an SPDX licence identifier or expression (SPDX 2.3 annex D).
    """
    if not isinstance(expression, str) or not expression.strip():
        raise InvalidLicence("a licence is required: name an SPDX identifier such as CC-BY-4.0")
    try:
        return str(canonicalize_license_expression(expression.strip()))
    except InvalidLicenseExpression:
        raise InvalidLicence(f"{expression!r} is not an SPDX licence identifier or expression") from None
