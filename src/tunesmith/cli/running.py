"""stub"""
def run() -> None:
    """r"""
def resume() -> None:
    """r"""
def demo() -> None:
    """r"""
